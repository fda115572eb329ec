"""A disk of its own that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoMountError(Exception):
    """This process may not mount anything; says why."""


@contextmanager
def mounted(place: Path, kib: int = 256) -> Iterator[Path]:
    """A disk of `kib` KiB at the new directory `place`; raises `NoMountError` where that is not allowed."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoMountError("there is no mount command here") from None
    if done.returncode != 0:
        raise NoMountError(f"a small tmpfs cannot be mounted here ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
