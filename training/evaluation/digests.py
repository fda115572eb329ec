"""What tells one directory of a model from another."""

from pathlib import Path
from typing import Final

import xxhash

from training.checkpoints.folder import file_digest

_MODEL_FILES: Final = {".json", ".safetensors", ".bin", ".model", ".txt"}


def directory_digest(directory: Path) -> str:
    """xxh3_128 over the names and digests of a model's files: weights, configuration, vocabulary."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for path in directory.rglob("*") if path.suffix in _MODEL_FILES and path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()} {file_digest(path)}\n".encode())
    return digest.hexdigest()
