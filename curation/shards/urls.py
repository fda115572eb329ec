"""Shard arguments as people write them: paths, globs, brace ranges, fsspec URLs."""

import posixpath
from collections.abc import Sequence

from braceexpand import braceexpand

from schemas.errors import UserError
from schemas.location import file_system

_GLOB_CHARACTERS = frozenset("*?[")


def expand_shards(patterns: Sequence[str]) -> tuple[str, ...]:
    """The shards that `patterns` name, sorted, each once.

    A pattern is a path or fsspec URL with `{000..127}` ranges and `*?[]` globs. Raises `UserError` for a pattern that
    matches nothing, a path that does not exist, and two shards of the same name (their outputs would collide).
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            expanded = list(braceexpand(pattern))
        except ValueError:
            raise UserError(f"{pattern}: unbalanced braces. Write ranges as name-{{000..127}}.tar.") from None
        for item in expanded:
            found.update(_matches(item))
    for url in found:
        if not _is_utf8(url):
            raise UserError(f"{url!r}: the name is not UTF-8. Rename it; outputs and records carry the shard's name.")
    shards = tuple(sorted(found, key=lambda url: (shard_name(url), url)))
    _refuse_equal_names(shards)
    return shards


def shard_name(url: str) -> str:
    """The name of a shard: its file or directory name without the `.tar` (or `.parquet`, ...) extension."""
    base = posixpath.basename(url.rstrip("/"))
    stem, dot, extension = base.rpartition(".")
    known = {"tar", "tgz", "parquet", "jsonl", "json", "txt", "gz"}
    return stem if dot and extension.lower() in known and stem else base


def _matches(item: str) -> list[str]:
    """What one path or glob names. A path that exists is itself, whatever characters it has."""
    fs, path = file_system(item)
    if fs.exists(path):
        return [item if "://" in item else path]
    if not _GLOB_CHARACTERS & set(item):
        raise UserError(f"{item}: no such shard. Check the path or the range in the braces.")
    matches = [str(fs.unstrip_protocol(p)) if "://" in item else str(p) for p in fs.glob(path)]
    if not matches:
        raise UserError(f"{item}: matches nothing. Check the path, and quote the pattern in the shell.")
    return matches


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_equal_names(shards: Sequence[str]) -> None:
    by_name: dict[str, str] = {}
    for url in shards:
        name = shard_name(url)
        if name in by_name:
            raise UserError(
                f"{by_name[name]} and {url}: two shards named {name}, their outputs would collide. "
                f"Rename one, or give each its own --out."
            )
        by_name[name] = url
