"""The bundled models say what they are; the scripts that make them cut, draw, scale and join as they say."""

from __future__ import annotations

import numpy as np
import pytest

from napari_tiled_unet import Image, list_models, load_model, segment
from napari_tiled_unet.model_files import ModelEntry, bundled_folder
from training.bundled import cut
from training.synthetic import SHAPE, drawn_nuclei
from training.train_cells_phase import SCALE, scaled
from training.train_membranes_3d import joined, membranes, neurons_of

BUNDLED = [entry for entry in list_models() if entry.bundled]
MEGABYTES = 40


def test_all_weights_together_are_small() -> None:
    files = list(bundled_folder().glob("*.safetensors"))
    assert len(files) == len(BUNDLED), "every file is a model"
    assert sum(file.stat().st_size for file in files) <= MEGABYTES * 1e6


@pytest.mark.parametrize("entry", BUNDLED, ids=[entry.name for entry in BUNDLED])
class TestCards:
    def test_the_card_says_what_it_was_made_of(self, entry: ModelEntry) -> None:
        spec = entry.spec
        assert spec.name == entry.name
        assert spec.summary
        assert spec.licence
        assert spec.training["data"]
        assert any(name.startswith("test_") for name in spec.scores)

    def test_its_licence_lies_beside_it(self, entry: ModelEntry) -> None:
        (row,) = [
            line for line in (bundled_folder() / "README.md").read_text().splitlines() if f"`{entry.path.name}`" in line
        ]
        assert entry.spec.licence.split("-")[0] in row.replace("Creative Commons Attribution", "CC")

    def test_it_segments(self, entry: ModelEntry) -> None:
        shape = (96, 96) if entry.spec.axes == "yx" else (32, 48, 48)
        image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        labels = segment(image, load_model(entry.path), axes=entry.spec.axes)
        assert labels.shape == shape

    def test_seams_were_measured(self, entry: ModelEntry) -> None:
        assert len(entry.spec.seams) >= 3


class TestScripts:
    def test_a_cut_leaves_a_gap(self) -> None:
        data = np.arange(100).reshape(1, 2, 50)
        (learn, _), (test, _) = cut(Image(data, "zyx"), Image(data, "zyx"), "x", share=0.2, gap=5)
        assert np.asarray(learn.data)[0, 0].tolist() == list(range(35))
        assert np.asarray(test.data)[0, 0].tolist() == list(range(40, 50))

    def test_drawn_nuclei_are_bright_and_separate(self) -> None:
        image, labels = (np.asarray(part.data) for part in drawn_nuclei(3))
        assert image.shape == labels.shape == SHAPE
        assert labels.max() > 10
        assert image[labels > 0].mean() > 1.5 * image[labels == 0].mean()
        again, _ = drawn_nuclei(3)
        np.testing.assert_array_equal(image, np.asarray(again.data))

    def test_labels_are_scaled_with_their_image(self) -> None:
        frame = np.zeros((61, 80), np.uint16)
        frame[20:40, 30:50] = 7
        image, labels = (np.asarray(part.data) for part in scaled((Image(frame, "yx"), Image(frame, "yx"))))
        assert image.shape == labels.shape
        assert labels.shape == (round(61 * SCALE), 40)
        assert ((image > 3.5) == (labels == 7)).mean() > 0.97

    def test_membranes_are_where_neurons_meet(self) -> None:
        neurons = np.ones((4, 4, 10), np.uint16)
        neurons[..., 5:] = 2
        found = np.asarray(membranes(Image(neurons, "zyx")).data)
        assert found[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]

    def test_fragments_are_joined_across_a_weak_membrane_only(self) -> None:
        fragments = np.ones((2, 4, 9), np.int64)
        fragments[..., 3:] = 2
        fragments[..., 6:] = 3
        membrane = np.zeros(fragments.shape, np.float32)
        membrane[..., 2:4], membrane[..., 5:7] = 0.9, 0.2
        found = joined(fragments, membrane, weak=0.5)
        assert len(np.unique(found)) == 2
        assert found[0, 0, 4] == found[0, 0, 8] != found[0, 0, 0]

    def test_neurons_are_what_a_membrane_parts(self) -> None:
        membrane = np.zeros((12, 24, 40), np.float32)
        membrane[:, :, 19:21] = 1
        found = neurons_of(membrane)
        assert len(np.unique(found)) == 2
        assert found[6, 12, 5] != found[6, 12, 35]
