"""Units of length and time, as files and people write them."""

from __future__ import annotations

NO_LENGTH = ("", "pixel", "pixels", "px")
"""What stands where a length is counted in voxels."""

# Micrometres per unit.
_MICROMETRES = {
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    # The micro sign, the Greek letter, and the escape that ImageJ writes.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "\\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("in", "inch"), 25400.0),
}
_SECONDS = {
    **dict.fromkeys(("d", "day"), 86400.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond"), 1e-3),
    **dict.fromkeys(("\u00b5s", "\u03bcs", "us", "microsecond"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
}


def micrometres_per(unit: str) -> float | None:
    """Return how many micrometres a unit is, by its name or symbol; None if it is no known length."""
    name = unit.strip().lower()
    return _MICROMETRES.get(name, _MICROMETRES.get(name.removesuffix("s")))


def seconds_per(unit: str) -> float | None:
    """Return how many seconds a unit is, by its name or symbol; None if it is no known time."""
    name = unit.strip().lower()
    return _SECONDS.get(name, _SECONDS.get(name.removesuffix("s")))
