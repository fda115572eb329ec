"""Fixtures that several rooms share: tiny latents and text data sets, written by the schemas alone."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import settings
from small_disk import NoMountError, mounted

from schemas.dataset import (
    DATASET_FILE,
    INDEX_DIR,
    LEDGER_DIR,
    NULL_TEXT_FILE,
    PLAN_FILE,
    DatasetInfo,
    LedgerEntry,
    OutputFile,
    PlannedUnit,
    PlanRecord,
    RunFacts,
    index_path,
    ledger_path,
    tar_path,
)
from schemas.record import to_json
from schemas.table import TableSchema
from schemas.tables import LATENTS_INDEX, TEXT_INDEX

# Tests never assert on time; and what CI tries is the same at every run.
settings.register_profile("latentmill", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("latentmill")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real test data; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
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
            return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}

    return read


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA-1.5 with random weights and pictures of 28 px."""
    import torch

    from curation.demo.models import make_llava

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("models") / "llava"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_llava(directory, image_px=28)
    return directory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own; skips where this process may not mount one."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(tmp_path / "disk"))
        except NoMountError as error:
            pytest.skip(str(error))
        yield disk


@dataclass(frozen=True, slots=True)
class Features:
    """A pair of data sets, and the names (shard, key) of their samples."""

    latents: Path
    text: Path
    names: tuple[tuple[str, str], ...]


WriteFeatures = Callable[..., Features]


@pytest.fixture
def write_features(tmp_path: Path) -> WriteFeatures:
    """Write a latents and a text data set: `write_features(buckets={(64, 64): 12}, dim=32, ...)`.

    Latents are cut into units of 7 and text into units of 5, so units never coincide. `without_latents` and
    `without_text` name rows (by position) that one side lacks. With `classes`, row i is of class i modulo as many.
    """

    def write(
        buckets: dict[tuple[int, int], int] | None = None,
        dim: int = 32,
        max_tokens: int = 12,
        seed: int = 0,
        folder: str = "features",
        without_latents: tuple[int, ...] = (),
        without_text: tuple[int, ...] = (),
        unit_rows: tuple[int, int] = (7, 5),
        classes: int = 0,
    ) -> Features:
        rng = np.random.default_rng(seed)
        shapes = [shape for shape, count in (buckets or {(64, 64): 12}).items() for _ in range(count)]
        names = tuple((f"shard-{i % 2}", f"folder/picture-{i:04d}") for i in range(len(shapes)))
        latents: list[tuple[dict[str, Any], bytes]] = []
        text: list[tuple[dict[str, Any], bytes]] = []
        for number, ((shard, key), (height, width)) in enumerate(zip(names, shapes, strict=True)):
            mean = rng.standard_normal((4, height // 8, width // 8)) * 3 + 1
            posterior = _npy(np.stack([mean, np.full_like(mean, 0.1)]).astype(np.float16))
            tokens = int(rng.integers(1, max_tokens + 1))
            embedding = _npy(rng.standard_normal((tokens, dim)).astype(np.float16))
            place = {"key": key, "shard": shard}
            crop = dict.fromkeys(("crop_top", "crop_left"), 0) | {"flipped": False}
            crop |= {"label": number % classes if classes else None}
            size = {"bucket": f"{height}x{width}", "height_px": height, "width_px": width}
            sizes = {f"{name}_height": height * 2 for name in ("original", "resized")}
            sizes |= {f"{name}_width": width * 2 for name in ("original", "resized")}
            latents.append((place | size | sizes | crop, posterior))
            text.append((place | {"tokens": tokens, "truncated": False, "caption_xxh64": 0}, embedding))
        root = tmp_path / folder
        kept_latents = [row for i, row in enumerate(latents) if i not in without_latents]
        kept_text = [row for i, row in enumerate(text) if i not in without_text]
        facts = {"scaling_factor": 0.18215, "shift_factor": 0.0, "channels": 4, "downsample": 8}
        _write_dataset(root / "latents", LATENTS_INDEX, kept_latents, ".latent.npy", unit_rows[0], facts)
        null = _npy(rng.standard_normal((1, dim)).astype(np.float16))
        facts = {"dim": dim, "max_tokens": max_tokens, "null_tokens": 1, "null_digest": xxhash.xxh3_128_hexdigest(null)}
        _write_dataset(root / "text", TEXT_INDEX, kept_text, ".text.npy", unit_rows[1], facts)
        (root / "text" / NULL_TEXT_FILE).write_bytes(null)
        return Features(root / "latents", root / "text", names)

    return write


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _write_dataset(
    root: Path,
    schema: TableSchema,
    rows: list[tuple[dict[str, Any], bytes]],
    suffix: str,
    unit_rows: int,
    facts: dict[str, Any],
) -> None:
    (root / INDEX_DIR).mkdir(parents=True)
    (root / LEDGER_DIR).mkdir()
    info = DatasetInfo(schema.kind, 1, schema.kind, {}, "f" * 32, "test", f"{schema.kind}-test", unit_rows, facts=facts)
    (root / DATASET_FILE).write_text(to_json(info))
    planned = []
    for start in range(0, len(rows), unit_rows):
        members, unit = rows[start : start + unit_rows], f"unit-{start:05d}"
        planned.append(PlannedUnit(unit, "shard", start, start + len(members)))
        _write_unit(root, schema, members, suffix, planned[-1])
    (root / PLAN_FILE).write_text(to_json(PlanRecord(("shard",), tuple(planned))))


def _write_unit(
    root: Path, schema: TableSchema, members: list[tuple[dict[str, Any], bytes]], suffix: str, unit: PlannedUnit
) -> None:
    with tarfile.open(root / tar_path(unit.name), "w") as tar:
        for row, content in members:
            member = tarfile.TarInfo(row["key"] + suffix)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(root / tar_path(unit.name)) as tar:
        offsets = [member.offset_data for member in tar]
    index = [
        row | {"offset": offset, "bytes": len(content), "xxh3": xxhash.xxh3_64_intdigest(content)}
        for (row, content), offset in zip(members, offsets, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(index, schema=schema.arrow), root / index_path(unit.name))
    outputs = tuple(
        OutputFile(path, (root / path).stat().st_size, "", len(members))
        for path in (tar_path(unit.name), index_path(unit.name))
    )
    facts = RunFacts(0.0, {}, 1, "", {})
    entry = LedgerEntry(
        unit.name, unit.shard, unit.start, unit.stop, "f" * 32, (), len(members), len(members), {}, {}, outputs, facts
    )
    (root / ledger_path(unit.name)).write_text(to_json(entry))
