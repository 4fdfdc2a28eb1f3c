"""Threads of the viewer: a core is left to it, and only the newest question is answered."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from typing import Any

import torch

from napari_tiled_unet.viewer.worker import Latest, one_core_left


def test_a_core_is_left_until_the_last_one_is_through(monkeypatch: Any) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before = torch.get_num_threads()
    first, second = one_core_left(), one_core_left()
    first.__enter__()
    assert torch.get_num_threads() == 1
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before


def test_only_the_newest_question_is_answered(qtbot: Any) -> None:
    latest, gate = Latest(), threading.Event()
    answers: list[Any] = []
    latest.ask(lambda: gate.wait(10) and 1, answers.append)
    for number in (2, 3, 4):
        latest.ask(partial(int, number), answers.append)
    gate.set()
    qtbot.waitUntil(lambda: not latest.busy, timeout=10_000)
    assert answers == [1, 4]


def test_an_error_is_an_answer_and_nothing_is_heard_after_the_end(qtbot: Any) -> None:
    latest = Latest()
    answers: list[Any] = []
    latest.ask(lambda: 1 / 0, answers.append)
    qtbot.waitUntil(lambda: not latest.busy, timeout=10_000)
    assert isinstance(answers[0], ZeroDivisionError)
    latest.ask(lambda: 5, answers.append)
    latest.close()
    qtbot.waitUntil(lambda: not latest.busy, timeout=10_000)
    latest.ask(lambda: 6, answers.append)
    assert len(answers) == 1


def test_what_was_asked_about_goes_with_the_answer(viewer: Any, qtbot: Any) -> None:
    class Layer:
        pass

    latest, layer, answers = Latest(), Layer(), list[Any]()
    known = weakref.ref(layer)
    latest.ask(partial(id, layer), partial(lambda _, result: answers.append(result), layer))
    del layer
    qtbot.waitUntil(lambda: not latest.busy, timeout=10_000)
    qtbot.wait(50)
    gc.collect()
    assert len(answers) == 1
    # napari keeps the worker itself for as long as it runs.
    assert known() is None
