"""The exceptions of this package, and nothing else.

::

    TiledUnetError                 anything this package refuses
    ├── OptionsError  (ValueError)   an option's value breaks its rule
    ├── ImageError    (ValueError)   an array or its axes cannot be segmented
    ├── FileError     (OSError)      a file cannot be read or written
    ├── ModelError    (ValueError)   a model file or a network description is unusable
    └── MemoryBudgetError (MemoryError)  the work does not fit the memory it may use

Every message names the value that was got, the rule it breaks and the remedy.
Each class also derives from the built-in a caller would expect to catch.
"""

from __future__ import annotations


class TiledUnetError(Exception):
    """Root of every error that this package raises on purpose."""


class OptionsError(TiledUnetError, ValueError):
    """An option's value breaks its rule."""


class ImageError(TiledUnetError, ValueError):
    """An array, its data type or its axes cannot be segmented."""


class FileError(TiledUnetError, OSError):
    """A file is missing, damaged, of an unknown format, or cannot be written."""


class ModelError(TiledUnetError, ValueError):
    """A model file or a network description cannot be used."""


class MemoryBudgetError(TiledUnetError, MemoryError):
    """The work does not fit the memory that it is allowed to use."""
