import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own; skips where this process may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def memory_url() -> Iterator[str]:
    """An empty directory of a file system that is not local."""
    fs = fsspec.filesystem("memory")
    url = f"memory://latentmill-test-{os.getpid()}"
    yield url
    if fs.exists(url):
        fs.rm(url, recursive=True)
