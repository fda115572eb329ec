"""Small files that commands leave."""

import contextlib
import os
from pathlib import Path

from schemas.errors import StorageError, UserError


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all; a link, a pipe or a device, such as /dev/stdout, is written to, not replaced.

    Raises `StorageError` where it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a place that is no directory
            aside.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror}). Give another file, or free space.") from None


def require_file(flag: str, path: Path | None) -> None:
    """Raise `UserError` before long work, not after it, if what `flag` names is a directory."""
    if path is not None and path.is_dir():
        raise UserError(f"{flag} {path}: a directory. Name a file.")
