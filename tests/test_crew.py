"""Work on an array is shared band by band."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_tiled_unet.crew import Crew


def test_bands_cover_the_first_axis() -> None:
    assert Crew((7, 10), 30).bands == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert Crew((2, 10), 1).bands == [slice(0, 1), slice(1, 2)]
    assert Crew((0, 10)).bands == []


@pytest.mark.parametrize("threads", [1, 3])
def test_each_band_is_worked_on_once_and_results_keep_their_order(threads: int) -> None:
    array = np.zeros((20, 3), int)

    def work(band: slice) -> int:
        array[band] += 1
        return band.start

    with Crew(array.shape, 6, threads) as crew:
        assert crew.each(work) == list(range(0, 20, 2))
        assert crew.each(work, crew.bands[:1]) == [0]
    assert array[:2].tolist() == [[2] * 3] * 2
    assert (array[2:] == 1).all()


def test_bands_are_in_work_side_by_side() -> None:
    # Neither passes before both are there.
    meeting = threading.Barrier(2, timeout=20)
    with Crew((2, 1), 1, threads=2) as crew:
        assert sorted(crew.each(lambda _: meeting.wait())) == [0, 1]


def test_few_large_planes_are_not_in_work_all_at_once() -> None:
    with Crew((64, 4096, 4096), threads=16) as crew:
        assert crew.threads == 2
    with Crew((8, 4096, 4096), threads=16) as crew:
        assert crew.threads == 1
    with Crew((128, 512, 512), threads=16) as crew:
        assert crew.threads == 8
    with Crew((4096, 4096), threads=16) as crew:
        assert crew.threads == 16


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_band_raises_is_raised_and_no_thread_stays(threads: int) -> None:
    before = threading.active_count()

    def work(band: slice) -> None:
        if band.start == 1:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"), Crew((4, 1), 1, threads) as crew:
        crew.each(work)
    assert threading.active_count() == before
