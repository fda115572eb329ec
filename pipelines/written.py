"""Small files that commands leave."""

import os
from pathlib import Path

from schemas.errors import StorageError


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all. Raises `StorageError` where it cannot be written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror}). Give another file, or free space.") from None
