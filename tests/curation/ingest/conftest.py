"""Pictures, metadata files, and a stand-in for img2dataset."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from standin_img2dataset import make_standin

from curation.shards.target import Target


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """The bytes of a small picture: `picture(number, width, height, format)`."""

    def make(number: int = 0, width: int = 96, height: int = 64, kind: str = "JPEG") -> bytes:
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((width, height)).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """A folder of twelve pictures, 0.jpg to 11.jpg, for the stand-in to serve."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(picture(number))
    return folder


@pytest.fixture
def standin(tmp_path: Path, pictures: Path) -> str:
    """The interpreter of an environment in which img2dataset is the stand-in."""
    return make_standin(tmp_path / "standin", pictures)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A dataset directory."""
    made = Target(str(tmp_path / "dataset"))
    made.require_writable()
    return made


@pytest.fixture
def write_metadata(tmp_path: Path) -> Callable[..., str]:
    """Write a metadata file: `write_metadata(name, rows, schema=None) -> path`."""

    def write(name: str, rows: Sequence[dict[str, Any]], schema: pa.Schema | None = None) -> str:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
        return str(path)

    return write
