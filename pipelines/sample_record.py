"""What a set of samples was made of, kept beside the pictures, so that the same command again has nothing to do."""

import os
from pathlib import Path
from typing import Any

from schemas.record import canonical_json

RECORD = "samples.json"


def stamp(path: str | Path) -> Any:
    """What tells whether a file or directory changed: names, sizes and times; a hub id stands for itself."""
    path = Path(path)
    if not path.exists():
        return str(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [[str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def is_current(out: Path, settings: dict[str, Any]) -> bool:
    """Whether `out` holds the pictures of exactly these settings, untouched since."""
    try:
        text = (out / RECORD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text == _record(out, settings)


def write_record(out: Path, settings: dict[str, Any]) -> None:
    """Write the record, last and in one piece."""
    aside = out / f".{RECORD}.part"
    aside.write_text(_record(out, settings), encoding="utf-8")
    os.replace(aside, out / RECORD)


def _record(out: Path, settings: dict[str, Any]) -> str:
    pictures = {p.name: stamp(p) for p in sorted(out.glob("*.png"))}
    return canonical_json({"settings": settings, "pictures": pictures}) + "\n"
