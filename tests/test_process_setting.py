"""A setting of the process: the first one in changes it, the last one out puts it back."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading

import pytest

from napari_tiled_unet.process_setting import ProcessSetting


class Dial:
    """Something that there is one of."""

    def __init__(self) -> None:
        self.value, self.told = 7, 0
        self.turned = ProcessSetting(self.turn, self.put_back)

    def turn(self) -> int:
        before, self.value = self.value, 0
        self.told += 1
        return before

    def put_back(self, before: int) -> None:
        self.value = before
        self.told += 1


def test_the_last_one_out_puts_it_back() -> None:
    dial = Dial()
    for wanted in (7, 5):
        dial.value, dial.told = wanted, 0
        with dial.turned:
            assert dial.value == 0
            with dial.turned:
                assert dial.turned.inside == 2
            assert dial.value == 0
        assert (dial.value, dial.told, dial.turned.inside) == (wanted, 2, 0)


def test_an_error_puts_it_back() -> None:
    dial = Dial()
    with pytest.raises(ZeroDivisionError), dial.turned:
        raise ZeroDivisionError
    assert dial.value == 7


def test_a_change_that_fails_is_not_counted() -> None:
    dial = Dial()
    turn, dial.turned._change = dial.turned._change, lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        dial.turned.enter()
    dial.turned._change = turn
    with dial.turned:
        assert dial.value == 0
    assert (dial.value, dial.turned.inside) == (7, 0)


def test_many_threads_agree() -> None:
    dial, seen = Dial(), []

    def use() -> None:
        for _ in range(200):
            with dial.turned:
                seen.append(dial.value)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {0}
    assert (dial.value, dial.turned.inside) == (7, 0)


def test_a_finalizer_may_leave_while_its_thread_enters() -> None:
    """As of a runner that is collected while another one begins."""
    dial = Dial()
    dial.turned.enter()

    def leave_within() -> None:
        with dial.turned._lock:
            dial.turned.leave()

    thread = threading.Thread(target=leave_within, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert (dial.value, dial.turned.inside) == (7, 0)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
def test_a_process_that_is_forked_meanwhile_can_use_it() -> None:
    dial = Dial()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with dial.turned._lock:
            held.set()
            go_on.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)

    def use() -> None:
        with dial.turned:
            os._exit(dial.value)

    child = multiprocessing.get_context("fork").Process(target=use)
    child.start()
    child.join(20)
    go_on.set()
    thread.join()
    assert child.exitcode == 0
