"""How numbers are spelt in the report."""

from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def number(value: float) -> str:
    """A count with thousands separators; a fraction to three significant digits, never as a power of ten."""
    if float(value).is_integer():
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def counted(count: int, what: str) -> str:
    """`count` of a thing whose plural ends in s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """`part` of `whole` in per cent. Little is never spelt as nothing, nor almost all as all."""
    if not whole:
        return "–"
    ratio = part / whole
    if 0 < ratio < 0.0005:
        return "<0.1%"
    if 0.9995 <= ratio < 1:
        return ">99.9%"
    return f"{ratio:.1%}"


def size(count: float) -> str:
    """Bytes in decimal units."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:,.0f} {_UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.3g} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as the two largest units that say something."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def rate(value: float | None) -> str:
    """Rows a second; a dash where it was not measured."""
    return "–" if value is None else number(round(value, 3))
