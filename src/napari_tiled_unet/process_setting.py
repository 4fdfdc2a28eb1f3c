"""A setting of the whole process that several may need changed at once."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ProcessSetting(Generic[T]):
    """Changed by the first who enters, put back by the last who leaves.

    Parameters
    ----------
    change : callable
        Changes it and returns what it was.
    restore : callable
        Takes what it was and puts it back.

    Examples
    --------
    >>> one_thread = ProcessSetting(lambda: swap_threads(1), torch.set_num_threads)
    >>> with one_thread:
    ...     ...
    """

    def __init__(self, change: Callable[[], T], restore: Callable[[T], None]) -> None:
        self._change, self._restore = change, restore
        # A finalizer may leave while this very thread enters.
        self._lock, self._inside = threading.RLock(), 0
        self._before: list[T] = []
        if hasattr(os, "register_at_fork"):
            # A process that is forked while another thread holds the lock would never get it.
            known = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _renew_lock(known()))

    @property
    def inside(self) -> int:
        """How many need it changed."""
        return self._inside

    def enter(self) -> None:
        """Need it changed from now on."""
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            try:
                self._before = [self._change()]
            except BaseException:
                self._inside -= 1
                raise

    def leave(self) -> None:
        """Need it no more; once for every :meth:`enter`."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore(self._before.pop())

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()


def _renew_lock(setting: ProcessSetting[T] | None) -> None:
    if setting is not None:
        setting._lock = threading.RLock()
