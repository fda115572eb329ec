"""Where the real samples are."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real test data; the test is skipped where there is none."""
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("LATENTMILL_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real test data: set LATENTMILL_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def read_tar() -> Callable[[Path], dict[str, bytes]]:
    """All members of a tar by name."""

    def read(path: Path) -> dict[str, bytes]:
        if not path.is_file():
            pytest.skip(f"no {path.name} in the test data")
        with tarfile.open(path) as tar:
            return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]

    return read
