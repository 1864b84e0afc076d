"""Numbers as the report shows them: percentages, points, bytes, milliseconds and factors."""

from __future__ import annotations

import math

MISSING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(number: int) -> str:
    """1,234."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """1 video, 2 videos."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent; 100 and 0 are shown only if they are exact."""
    shown, edge = f"{share:.{digits}%}", 0.01 * 10.0**-digits
    if share < 1 and shown == f"{1:.{digits}%}":
        return f"{1 - edge:.{digits}%}"
    if share > 0 and shown == f"{0:.{digits}%}":
        return f"{edge:.{digits}%}"
    return shown


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f} points".replace("-", "−") if rounded else "0.0 points"


def loss_in_words(share: float) -> str:
    """A threshold in percentage points: "0.5 points", "1 point"."""
    return f"{share * 100:g} point{'' if share == 0.01 else 's'}"


def megabytes(size: int) -> str:
    """Bytes in MB, or in GB from 1,000 MB on."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.{1 if size < 1e8 else 0}f} MB"


def milliseconds(ms: float) -> str:
    """Three significant digits, so that fast and slow stages can share a column."""
    digits = 2 if ms <= 0 else max(0, 2 - math.floor(math.log10(ms)))
    return f"{ms:,.{min(digits, 3)}f} ms"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def decimal(value: float | None, digits: int = 1) -> str:
    """A number with fixed decimals; a dash for None."""
    return _not_a_number(value) or f"{value:,.{digits}f}".replace("-", "−")


def small(value: float | None) -> str:
    """Two significant digits of a number that may be very small; a dash for None."""
    if value is None or not math.isfinite(value) or value == 0 or abs(value) >= 1e-3:
        return _not_a_number(value) or f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def times(before: float, after: float, better: str, worse: str) -> str:
    """The factor by which something shrank or grew: "3.1× smaller", "1.2× larger"."""
    if before <= 0 or after <= 0:
        return MISSING
    ratio = before / after
    factor = max(ratio, 1 / ratio)
    if factor < 1.05:
        return "the same"
    return f"{factor:.1f}× {better if ratio > 1 else worse}"


def noise_share(sqnr_db: float) -> str:
    """Noise as a share of the signal (root mean square): 20 dB is 10%."""
    return f"{float(f'{100 * 10 ** (-sqnr_db / 20):.2g}'):g}%"


def option_value(value: object) -> str:
    """The value of a calibration option."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "off" if value is None or value is False else "on" if value is True else str(value)


def _not_a_number(value: float | None) -> str:
    """A dash for None, words for infinity and NaN, empty for any other number."""
    if value is None:
        return MISSING
    return "" if math.isfinite(value) else "not finite"
