"""The loop: it learns, it can be trusted, and nothing is lost."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_tiled_unet import Image, iter_train, load_model, read_image, runtime, segment, train
from napari_tiled_unet.errors import FileError, ImageError, OptionsError
from napari_tiled_unet.events import Notice
from napari_tiled_unet.lazy import reads_an_open_file
from napari_tiled_unet.metrics import average_precision
from napari_tiled_unet.region import Region
from napari_tiled_unet.train_options import TrainOptions
from napari_tiled_unet.training import Prepared, StepDone, Trained, Validated, loop, state, step
from napari_tiled_unet.training.patches import Patches
from napari_tiled_unet.training.preparation import _training_dtype
from napari_tiled_unet.training.state import checkpoint_path, read_checkpoint
from tests.training.scenes import SMALL, scene, scenes


def run(**keywords: Any) -> list[Any]:
    """Train on three small images and return all events."""
    return list(iter_train(*scenes(3), **{**SMALL, "steps": 8, **keywords}))


def only(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).network.state_dict()


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_it_learns_to_segment() -> None:
    images, labels = scenes(4)
    model = train(images, labels, **{**SMALL, "width": 8, "batch": 4, "steps": 120, "validate_every": 40})
    image, truth = scene(seed=99)
    assert average_precision([segment(image, model)], [truth]).pooled[0] > 0.6
    assert model.spec.training["steps"] in (40, 80, 120)
    assert model.spec.scores["val_ap50"] > 0.6
    assert any(choice["name"] == "patch" for choice in model.spec.training["plan"])
    assert model.spec.object_size == pytest.approx(11, abs=1)


def test_events_come_in_order() -> None:
    events = run()
    assert isinstance(next(e for e in events if not isinstance(e, Notice)), Prepared)
    assert [e.step for e in only(events, StepDone)] == list(range(1, 9))
    assert [e.step for e in only(events, Validated)] == [4, 8]
    prepared, done = only(events, Prepared)[0], events[-1]
    assert isinstance(done, Trained)
    assert (prepared.n_training, prepared.n_validation) == (3, 3)
    assert "a part of 3 of 3 images is held out" in prepared.split
    assert prepared.patches[0].image.shape == (1, 32, 32)
    assert done.reason == "all 8 steps done"
    assert len(done.history) == 2
    assert only(events, StepDone)[-1].progress == 1


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two, other = (run(steps=4, seed=seed)[-1].model.network.state_dict() for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)


def test_workers_do_not_change_the_result() -> None:
    one, two = (run(steps=4, workers=n)[-1].model.network.state_dict() for n in (0, 1))
    assert same(one, two)


@pytest.mark.parametrize("extra", [{}, {"schedule": "plateau"}], ids=["cosine", "plateau"])
def test_resuming_gives_the_same_as_never_stopping(tmp_path: Path, extra: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    run(out=whole, steps=12, **extra)
    events = iter_train(*scenes(3), out=parts, **{**SMALL, "steps": 12, **extra})
    for event in events:
        # Between two validations, where the loss of the interval is half summed.
        if isinstance(event, StepDone) and event.step == 6:
            events.close()
    resumed = run(out=parts, steps=12, resume=True, **extra)
    assert only(resumed, Prepared)[0].first_step == 6
    assert same(weights(whole), weights(parts))
    full, rest = (read_checkpoint(checkpoint_path(p)) for p in (whole, parts))
    assert same(full.tensors["network"], rest.tensors["network"])
    for one, two in zip(full.words["history"], rest.words["history"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


TRAINING = """
import sys
from pathlib import Path
from napari_tiled_unet.training import iter_train, StepDone
from tests.training.scenes import SMALL, scenes
for event in iter_train(*scenes(3), out=Path(sys.argv[1]), resume=len(sys.argv) > 2, **{**SMALL, "steps": 12}):
    if isinstance(event, StepDone):
        print(event.step, flush=True)
"""


def test_a_kill_loses_at_most_one_interval(tmp_path: Path) -> None:
    out, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 7:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert read_checkpoint(checkpoint_path(out)).words["step"] == 4
    run(out=out, steps=12, resume=True)
    run(out=whole, steps=12)
    assert same(weights(out), weights(whole))
    assert not list(tmp_path.glob(".*partial"))


def test_closing_keeps_the_best_model_so_far(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    events = iter_train(*scenes(3), out=out, **{**SMALL, "steps": 100})
    best = next(event for event in events if isinstance(event, Validated))
    events.close()
    assert same(weights(out), best.model.network.state_dict())
    assert checkpoint_path(out).exists()


def test_closing_before_the_first_validation_keeps_the_weights(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    events = iter_train(*scenes(3), out=out, **{**SMALL, "steps": 100})
    next(event for event in events if isinstance(event, StepDone))
    events.close()
    assert load_model(out).spec.training["steps"] == 1


def test_closing_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    events = iter_train(*scenes(3), out=tmp_path / "mine.safetensors", **{**SMALL, "steps": 100})
    next(events)
    events.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Hear of interrupts, also where the tests are run behind a shell that ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_keeps_what_a_cancel_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = tmp_path / "interrupted.safetensors", tmp_path / "whole.safetensors"
    late = {"validate_every": 1000}
    take = Patches.__getitem__

    def pressed(self: Patches, index: int) -> Any:
        if index == 5 * SMALL["batch"]:
            signal.raise_signal(signal.SIGINT)
        return take(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(Patches, "__getitem__", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(out=out, **late)
    assert load_model(out).spec.training["steps"] == 5
    assert only(run(out=out, resume=True, **late), Prepared)[0].first_step == 5
    run(out=whole, **late)
    assert same(weights(out), weights(whole))


def test_a_resumed_run_replaces_a_model_that_was_never_judged(tmp_path: Path) -> None:
    out, late = tmp_path / "model.safetensors", {**SMALL, "steps": 8, "validate_every": 1000}
    for resume, last in ((False, 2), (True, 5)):
        events = iter_train(*scenes(3), out=out, resume=resume, **late)
        for event in events:
            if isinstance(event, StepDone) and event.step == last:
                events.close()
        assert load_model(out).spec.training["steps"] == last


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_within_a_step_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = tmp_path / "interrupted.safetensors", tmp_path / "whole.safetensors"
    average = state.State.average

    def pressed(self: state.State, decay: float) -> None:
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        average(self, decay)

    with monkeypatch.context() as patched:
        patched.setattr(state.State, "average", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(out=out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert read_checkpoint(checkpoint_path(out)).words["step"] == 3
    run(out=out, resume=True)
    run(out=whole)
    kept, full = (read_checkpoint(checkpoint_path(p)) for p in (out, whole))
    assert same(kept.tensors["averaged"], full.tensors["averaged"])
    assert kept.words["history"][0]["loss"] == full.words["history"][0]["loss"]


@pytest.mark.parametrize("step", [4, 8], ids=["between", "last"])
def test_a_validation_that_is_interrupted_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    from napari_tiled_unet.training.examination import Examiner

    out, whole = tmp_path / "interrupted.safetensors", tmp_path / "whole.safetensors"
    events = iter_train(*scenes(3), out=out, **{**SMALL, "steps": 8})
    while getattr(next(events), "step", 0) != step:
        pass

    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Examiner, "score", pressed)
        with pytest.raises(KeyboardInterrupt):
            next(events)
    resumed = run(out=out, resume=True)
    assert [e.step for e in only(resumed, Validated)] == [4, 8][step // 4 - 1 :]
    run(out=whole)
    assert same(weights(out), weights(whole))
    for one, two in zip(*(read_checkpoint(checkpoint_path(p)).words["history"] for p in (out, whole)), strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_after_the_score_loses_no_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "m.safetensors"
    real = loop.save_model

    def pressed(*what: Any, **how: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*what, **how)

    monkeypatch.setattr(loop, "save_model", pressed)
    with pytest.raises(KeyboardInterrupt):
        run(out=out)
    assert load_model(out).spec.scores
    assert read_checkpoint(checkpoint_path(out)).words["best_step"] == 4


def test_a_fresh_training_leaves_no_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run(out=out, steps=4)
    before = checkpoint_path(out).read_bytes()
    with pytest.raises(ImageError, match="no labels"):
        iter_train(scenes(3)[0], [t * 0 for t in scenes(3)[1]], out=out, overwrite=True, **SMALL)
    looked = iter_train(*scenes(3), out=out, overwrite=True, **{**SMALL, "steps": 8})
    while not isinstance(next(looked), Prepared):
        pass
    looked.close()
    assert checkpoint_path(out).read_bytes() == before, "what was refused or only looked at costs nothing"
    events = iter_train(*scenes(3), out=out, overwrite=True, **{**SMALL, "steps": 8})
    next(event for event in events if isinstance(event, StepDone))
    assert not checkpoint_path(out).exists()
    events.close()
    assert read_checkpoint(checkpoint_path(out)).words["step"] == 1


def test_a_checkpoint_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    checkpoint_path(out).mkdir()
    with pytest.raises(FileError, match=r"checkpoint' of another training cannot be removed: .* remove it, or choose"):
        run(out=out, overwrite=True)


def test_a_training_whose_model_was_moved_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run(out=out, steps=4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != out}
    out.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(FileError, match=r"m\.safetensors' any more; put it back there to resume, or train without"):
        run(out=out, steps=8, resume=True)
    with pytest.raises(FileError, match=r"m\.checkpoint' of another training exists; .* or allow overwriting"):
        run(out=out, steps=8)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    (tmp_path / "elsewhere.safetensors").rename(out)
    assert only(run(out=out, steps=8, resume=True), Trained)[0].step == 8


def test_another_model_in_its_place_is_not_taken_for_the_best(tmp_path: Path) -> None:
    out, other = tmp_path / "m.safetensors", tmp_path / "other.safetensors"
    run(out=out, steps=4)
    run(out=other, steps=4, seed=5)
    before = out.read_bytes()
    out.write_bytes(other.read_bytes())
    with pytest.raises(FileError, match=r"m\.safetensors' is not of this training .*; put its own model back there"):
        run(out=out, steps=8, resume=True)
    out.write_bytes(before)
    assert only(run(out=out, steps=8, resume=True), Trained)[0].step == 8


def test_names_that_are_no_text_are_written_down(tmp_path: Path) -> None:
    images, labels = scenes(2)
    named = [Image(image, "yx", name=os.fsdecode(b"caf\xe9")) for image in images]
    out = tmp_path / "m.safetensors"
    list(iter_train(named, labels, out=out, **{**SMALL, "steps": 4}))
    assert load_model(out).spec.training["images"][0] == r"caf\udce9 (64, 64)"


@pytest.mark.parametrize("flags", ["amx_bf16 avx512_bf16", "avx512_bf16"])
@pytest.mark.parametrize("isa", [None, "AVX512_CORE_BF16", "avx512_core_amx"])
def test_3d_is_not_trained_in_the_units_that_fail(monkeypatch: pytest.MonkeyPatch, flags: str, isa: str | None) -> None:
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: set(flags.split()))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if isa is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    fails = "amx" in flags and isa != "AVX512_CORE_BF16"
    told: list[str] = []
    cpu, auto = torch.device("cpu"), TrainOptions()
    assert _training_dtype(auto, cpu, "zyx", told) == (torch.float32 if fails else torch.bfloat16)
    assert len(told) == fails
    assert _training_dtype(auto, cpu, "yx", []) == torch.bfloat16
    asked = TrainOptions(precision="bfloat16")
    if fails:
        with pytest.raises(OptionsError, match=r"may end the process in 3D on this processor.*ONEDNN_MAX_CPU_ISA"):
            _training_dtype(asked, cpu, "zyx", [])
    else:
        assert _training_dtype(asked, cpu, "zyx", []) == torch.bfloat16


def test_a_flat_stack_is_trained_in_3d() -> None:
    """In a process of its own: in AMX units the gradient in bfloat16 ended it."""
    script = """
        from napari_tiled_unet import Image, train
        from tests.training.scenes import scene
        image, labels = scene((8, 96, 96), radius=5)
        train(Image(image, "zyx", (1, 1, 1)), labels, dimensions="3D", steps=2, batch=2, width=8, depth=2)
        print("trained")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "trained", done.stderr[-2000:]


def test_large_compressed_files_are_read_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are forked share the place in an open file, and read each other's voxels."""
    monkeypatch.setattr("napari_tiled_unet.io.tiff.LAZY_BYTES", 0)
    images, labels = scenes(2)
    for number, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, compression="zlib", tile=(32, 32))
    lazy = [read_image(tmp_path / f"{number}.tif") for number in range(2)]
    assert reads_an_open_file(lazy[0].data)
    assert reads_an_open_file(lazy[0].part(Region.parse("y=2:60")).data)
    assert not reads_an_open_file(images[0])
    given: list[int] = []
    loader = torch.utils.data.DataLoader

    def watched(*arguments: Any, **keywords: Any) -> Any:
        given.append(keywords["num_workers"])
        return loader(*arguments, **keywords)

    monkeypatch.setattr(torch.utils.data, "DataLoader", watched)
    for source, said in ((lazy, 1), (images, 0)):
        events = list(iter_train(source, labels, **{**SMALL, "steps": 1, "workers": 2}))
        assert sum("workers=2 is left out" in e.message for e in only(events, Notice)) == said
    assert given == [0, 2]


def test_what_a_start_model_has_otherwise_is_told(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run(out=out, steps=1)
    cautions = [
        e.message for e in only(run(start=str(out), steps=1, architecture="unetpp", width=6), Notice) if e.caution
    ]
    assert "architecture='unetpp' has no effect: the start model 'm' has 'unet' and keeps it" in cautions
    assert any("width=6 has no effect" in c for c in cautions)
    assert not any("depth" in c for c in cautions)


def test_a_mask_is_told_wherever_it_shows() -> None:
    images, labels = scenes(3)
    masks = [(np.where(truth == 1, 255, 0) if k == 0 else (truth > 0) * 255) for k, truth in enumerate(labels)]
    with pytest.raises(ImageError, match=r"hold one number, 255, in \d separate places: this is a mask"):
        iter_train(images, masks, **SMALL)


def test_a_loss_that_explodes_stops_with_the_last_good_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "mine.safetensors"
    real = step._deep_loss

    def explodes(session: Any, *rest: Any) -> torch.Tensor:
        loss = real(session, *rest)
        return loss * math.nan if session.state.step == 6 else loss

    monkeypatch.setattr(step, "_deep_loss", explodes)
    events = run(out=out, steps=40)
    assert isinstance(events[-1], Trained)
    assert events[-1].step == 6
    assert "became nan after step 6" in events[-1].reason
    assert "lower learning_rate" in only(events, Notice)[-1].message
    assert all(torch.isfinite(v).all() for v in weights(out).values())
    assert same(weights(out), only(events, Validated)[0].model.network.state_dict())


def test_it_stops_early_without_a_better_score(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tiled_unet.training.examination import Examiner

    scores = iter([0.5, 0.4, 0.6, 0.6, 0.1])
    monkeypatch.setattr(Examiner, "score", lambda *_: (score := next(scores), {"ap": score}))
    events = run(steps=400, validate_every=1, patience=2)
    done = events[-1]
    assert done.reason == "no better score in 2 validations"
    assert (done.step, done.best_step) == (5, 3)
    assert done.scores == {"ap": 0.6}
    assert [e.is_best for e in only(events, Validated)] == [True, False, True, False, False]


def test_it_stops_when_the_minutes_are_up() -> None:
    events = run(steps=100_000, minutes=0.01)
    assert events[-1].reason == "0.01 minutes are up"
    assert only(events, Validated)


def test_preparing_patches_counts_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Patches.__getitem__

    def slowly(patches: Patches, index: int) -> Any:
        time.sleep(0.1)
        return take(patches, index)

    monkeypatch.setattr(Patches, "__getitem__", slowly)
    assert run(steps=3)[-1].seconds > 3 * SMALL["batch"] * 0.1
    events = run(steps=100_000, minutes=0.001)
    assert len(only(events, StepDone)) == 1, "the minutes are up while it waits for the first batch"
    assert len(only(events, Validated)) == 1, "and what was learned is scored all the same"


def test_the_plateau_schedule_halves_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tiled_unet.training.examination import Examiner

    monkeypatch.setattr(Examiner, "score", lambda *_: (0.1, {"ap": 0.1}))
    rates = [e.learning_rate for e in only(run(steps=40, validate_every=5, schedule="plateau"), StepDone)]
    assert max(rates) == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(5e-4)


def test_the_cosine_schedule_warms_up_and_falls() -> None:
    rates = [e.learning_rate for e in only(run(steps=40, validate_every=40, learning_rate=1e-2), StepDone)]
    assert rates[0] < 1e-3
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert np.argmax(rates) in (9, 10, 11)
    assert rates[-1] < 3e-4


def test_a_training_goes_on_from_another_model(tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    run(out=first, steps=4)
    second = run(start=str(first), freeze_encoder=True, steps=4)[-1].model
    before, after = weights(first), second.network.state_dict()
    encoder = [key for key in before if key.startswith("encoder.")]
    assert all(torch.equal(before[key], after[key]) for key in encoder)
    assert not same(before, after)
    free = run(start=str(first), steps=4)[-1].model.network.state_dict()
    assert not all(torch.equal(before[key], free[key]) for key in encoder)


@pytest.mark.parametrize("loss", ["focal", "tversky"])
def test_other_losses_train(loss: str) -> None:
    assert all(math.isfinite(e.loss) for e in only(run(steps=2, loss=loss), StepDone))


def test_supervision_at_depth_is_used_where_the_network_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tiled_unet.networks.zoo import Network

    plain = only(run(steps=1), StepDone)[0].loss

    def twice(self: Network, x: torch.Tensor) -> list[torch.Tensor]:
        fine = self(x)
        return [fine, torch.nn.functional.avg_pool2d(fine, 2)]

    monkeypatch.setattr(Network, "training_outputs", twice, raising=False)
    deep = only(run(steps=1), StepDone)[0].loss
    assert math.isfinite(deep)
    assert deep != plain
    assert deep == pytest.approx(plain, rel=0.3)


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(state.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FileError, match=r"0 MiB free, a training of this network needs .* make room"):
        iter_train(*scenes(3), out=tmp_path / "m.safetensors", **SMALL)


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match="No space left on device; make room and resume"):
        run(out=tmp_path / "m.safetensors")
    assert not list(tmp_path.glob(".*partial"))


def test_resume_wants_the_same_options_and_images(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run(out=out, steps=4)
    with pytest.raises(OptionsError, match="augmentation was 'standard' and is 'light'; give the same"):
        run(out=out, resume=True, augmentation="light")
    with pytest.raises(OptionsError, match=r"batch was 2 and is 1, patch was \[32\] and is \[16\]; give the same"):
        run(out=out, resume=True, batch=1, patch=16)
    with pytest.raises(OptionsError, match="other images"):
        iter_train(*scenes(2), out=out, resume=True, **{**SMALL, "steps": 8})
    with pytest.raises(ImageError, match="nothing that is learned from has labels above the background; label objects"):
        iter_train(scenes(3)[0], [t * 0 for t in scenes(3)[1]], out=out, resume=True, **{**SMALL, "steps": 8})
    assert run(out=out, steps=8, resume=True)[-1].step == 8


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no checkpoint .* train without resume first"):
        run(out=tmp_path / "m.safetensors", resume=True)
    with pytest.raises(OptionsError, match="say which with out"):
        run(resume=True)
    out = tmp_path / "m.safetensors"
    checkpoint_path(out).write_bytes(b"not a checkpoint")
    with pytest.raises(FileError, match="is damaged"):
        run(out=out, resume=True)


def test_a_model_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(FileError, match="exists; choose another name, resume, or allow overwriting"):
        run(out=out)
    assert out.read_bytes() == b"precious"
    with pytest.raises(FileError, match=r"must end in \.safetensors"):
        run(out=tmp_path / "m.pt")
    run(out=out, overwrite=True, steps=2)
    assert load_model(out).spec.name == "m"


def test_the_curves_are_written(tmp_path: Path) -> None:
    from PIL import Image as Picture

    run(out=tmp_path / "m.safetensors")
    lines = (tmp_path / "m.curves.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,loss,learning_rate,score,ap,ap50,ap75,ap90"
    assert [line.split(",")[0] for line in lines[1:]] == ["4", "8"]
    with Picture.open(tmp_path / "m.curves.png") as picture:
        assert picture.size[0] > 400
        assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_without_matplotlib_the_table_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    events = run(out=tmp_path / "m.safetensors", steps=2)
    assert "pip install 'napari-tiled-unet[train]'" in only(events, Notice)[-1].message
    assert (tmp_path / "m.curves.csv").exists()


def test_cautions_are_warnings() -> None:
    image, labels = scene((24, 24), count=1, radius=5)
    with pytest.warns(UserWarning, match="training and validation are the same voxels"):
        train(image, labels, **{**SMALL, "patch": 16, "steps": 1})


def test_a_stack_trains_a_3d_network() -> None:
    images, labels = scenes(2, shape=(16, 32, 32), count=4, radius=4)
    options = {**SMALL, "patch": (8, 16, 16), "steps": 2, "axes": "zyx"}
    model = list(iter_train(images, labels, **options))[-1].model
    assert model.spec.axes == "zyx"
    assert segment(images[0], model, axes="zyx").shape == (16, 32, 32)


def test_slices_of_a_stack_train_a_2d_network() -> None:
    image, labels = scene((10, 32, 32), count=4, radius=5)
    events = list(iter_train(image, labels, **{**SMALL, "steps": 2, "axes": "zyx", "dimensions": "2D"}))
    assert events[-1].model.spec.axes == "yx"
    assert "2 of 10 frames are held out" in only(events, Prepared)[0].split


def test_classes_and_several_channels_train() -> None:
    images, labels = scenes(3)
    stacked = [np.stack([image, image[::-1]]) for image in images]
    classes = [(truth > 0).astype(np.uint8) + (truth > 3) for truth in labels]
    options = {**SMALL, "steps": 4, "axes": "cyx", "target": "classes", "classes": ("ground", "few", "many")}
    done = list(iter_train(stacked, classes, **options))[-1]
    assert done.model.spec.target.classes == ("ground", "few", "many")
    assert len(done.model.spec.channels) == 2
    assert set(done.scores) == {"dice", "dice ground", "dice few", "dice many"}


def test_time_is_counted_over_sessions(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    before = run(out=out, steps=4)[-1].seconds
    started = time.monotonic()
    after = run(out=out, steps=8, resume=True)[-1].seconds
    assert before < after < before + time.monotonic() - started
    assert json.loads(json.dumps(load_model(out).spec.training))["seconds"] > 0
