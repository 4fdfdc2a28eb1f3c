"""Freed memory kept for the next tile.

A network's intermediate results are large, and the C library gives each back to the
system when it is freed, so that the next layer touches fresh pages, which the system
clears one by one: 20 to 40 % of a run on Linux. While a network is in use, freed memory is
kept instead; afterwards all of it is given back.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

from napari_tiled_unet.process_setting import ProcessSetting

# Numbers of malloc.h and their defaults there.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65536


def keep_freed_memory() -> Callable[[], None]:
    """Keep freed memory from now on; returns the function that ends it.

    Calls may overlap; the last end gives the memory back. Does nothing where the C library
    is not glibc, or where the address space is limited (``ulimit -v``): gaps between what is
    in use would count against the limit.
    """
    if _glibc() is None or _address_space_is_limited():
        return lambda: None
    _kept.enter()
    return _kept.leave


def _keep() -> ctypes.CDLL:
    library = _glibc()
    assert library is not None, "nobody enters without it"
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    # Threads that start later share one heap: those of their own cannot hold large blocks.
    library.mallopt(_ARENA_MAX, 1)
    return library


def _give_back(library: ctypes.CDLL) -> None:
    library.mallopt(_MMAP_MAX, _DEFAULT_MMAPS)
    library.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
    library.mallopt(_ARENA_MAX, 0)
    library.malloc_trim(0)


_kept = ProcessSetting(_keep, _give_back)


def _address_space_is_limited() -> bool:
    if sys.platform == "win32":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    # musl has neither.
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
