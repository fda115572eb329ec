"""Local paths and fsspec URLs alike."""

from functools import lru_cache
from typing import Any

import fsspec

from schemas.errors import UserError


@lru_cache(maxsize=1024)  # asked for every file of every unit; fsspec itself hands out one instance a place
def file_system(url: str) -> tuple[Any, str]:
    """The file system of `url` and the path in it.

    Raises `UserError` for a protocol that fsspec does not know or whose package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}. Use a local path, or install the package for this kind of URL.") from None
    return fs, str(path)


def is_local(fs: Any) -> bool:
    """Whether a file system is this machine's own (or mounted in it)."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))
