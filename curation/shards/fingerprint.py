"""Digests that tie an output to what made it."""

import os
import posixpath
from typing import Any

import fsspec
import xxhash

from schemas.record import canonical_json

_CHUNK = 8 << 20


def digest_of(value: Any) -> str:
    """The xxh3-128 of `value`'s canonical JSON, in hex."""
    return xxhash.xxh3_128(canonical_json(value).encode()).hexdigest()


def digest_file(path: str) -> str:
    """The xxh3-128 of a file's content, in hex. `path` may be an fsspec URL."""
    digest = xxhash.xxh3_128()
    with fsspec.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_directory(path: str) -> str:
    """One digest of a local directory's files: names and contents, not times. Hidden files do not count."""
    digests = {}
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            whole = os.path.join(folder, name)
            digests[os.path.relpath(whole, path).replace(os.sep, posixpath.sep)] = digest_file(whole)
    return digest_of(digests)


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The names of the settings in which two configurations differ, dotted for nested ones."""
    out: list[str] = []
    for key in sorted(set(old) | set(new)):
        left, right = old.get(key), new.get(key)
        if canonical_json(left) == canonical_json(right):  # one of them came from JSON, where tuples are lists
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            out += [f"{key}.{inner}" for inner in differing_keys(left, right)]
        else:
            out.append(key)
    return out
