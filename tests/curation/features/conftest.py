"""Tiny real models, and shards and captions datasets made on the spot."""

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from curation.demo.models import make_tiny_models
from curation.execution.job import Job, JobOptions, run_job
from curation.execution.plan import plan_images, plan_selected, plan_tables
from curation.execution.stage import Stage
from curation.execution.summary import JobSummary
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, PLAN_FILE, DatasetInfo, PlannedUnit, PlanRecord, RunFacts, table_path
from schemas.reading import open_dataset
from schemas.record import to_json
from schemas.selection import Selection
from schemas.tables import CAPTIONS


@dataclass(frozen=True, slots=True)
class TinyModels:
    vae: Path
    t5: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    torch.set_num_threads(1)
    made = make_tiny_models(tmp_path_factory.mktemp("models"))
    return TinyModels(made["vae"], made["t5"])


@pytest.fixture
def picture() -> Callable[[int, int, int], bytes]:
    """`picture(height, width, seed)`: a JPEG with something to see in it."""

    def make(height: int, width: int, seed: int = 0) -> bytes:
        small = torch.randint(0, 256, (6, 6, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small.numpy()).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        return buffer.getvalue()

    return make


@pytest.fixture
def write_tar() -> Callable[[Path, dict[str, bytes]], str]:
    def write(path: Path, members: dict[str, bytes]) -> str:
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return str(path)

    return write


@pytest.fixture
def write_captions(tmp_path: Path) -> Callable[..., str]:
    """`write_captions({unit: [row, ...]})`: a whole captions dataset; a row is a text or the columns that matter."""

    def write(units: dict[str, Sequence[Any]], url: str = str(tmp_path / "captions")) -> str:
        target = Target(url)
        planned = [PlannedUnit(name, name.partition("-")[0], 0, len(rows)) for name, rows in units.items()]
        shards = tuple(sorted({unit.shard for unit in planned}))
        info = DatasetInfo("captions", CAPTIONS.version, "caption", {}, "f" * 32, "webdataset", "c0ffee", 0)
        target.write_text(DATASET_FILE, to_json(info))
        target.write_text(PLAN_FILE, to_json(PlanRecord(shards, tuple(planned))))
        for unit, rows in zip(planned, units.values(), strict=True):
            with UnitWriter(target, unit, "caption") as writer:
                sink = writer.table(table_path(unit.name), CAPTIONS)
                for number, row in enumerate(rows):
                    whole = _caption_row(unit.shard, number, {"caption": row} if isinstance(row, str) else row)
                    sink.write([whole])
                    writer.keep(whole["key"])
                writer.commit(info.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))
        return url

    return write


def _caption_row(shard: str, number: int, given: dict[str, Any]) -> dict[str, Any]:
    text = given.get("caption", "a red barn")
    return {
        "key": f"folder/{number:04}",
        "shard": shard,
        "width": 64,
        "height": 64,
        "raw_caption": None,
        "generated": text,
        "caption": text,
        "status": "ok",
        "flags": [],
        "finish_reason": "stop",
        "n_prompt_tokens": 1,
        "n_tokens": 1,
        "n_t5_tokens": None,
        "n_words": 1,
        "repeated_4grams": None,
        "compression": None,
        "mean_logprob": None,
        "error": None,
        "prompt_id": "p",
        "rules_version": 1,
        "seed": -1,
        **given,
    }


@pytest.fixture
def run_images() -> Callable[..., JobSummary]:
    """Run an image stage inline over tars."""

    def run(stage: Any, urls: Sequence[str], unit_rows: int = 0) -> JobSummary:
        plans = plan_images(stage.target, urls, stage.source.container, unit_rows)
        return _run(Job(stage, stage.target, stage.source.name, [Path(u).stem for u in urls], plans, unit_rows))

    return run


@pytest.fixture
def run_text() -> Callable[..., JobSummary]:
    """Run a text stage inline over a captions dataset, or what a selection takes of it."""

    def run(stage: Any, captions_url: str, selection: Selection | None = None) -> JobSummary:
        captions = open_dataset(captions_url, "captions").require_whole()
        source = f"captions:{captions.info.dataset_id}:{stage.column}"
        shards = sorted({entry.shard for entry in captions.entries})
        plans = plan_tables(captions)
        selected = plan_selected(plans, selection, shards) if selection else plans
        return _run(Job(stage, stage.target, source, shards, selected))

    return run


def _run(job: Job) -> JobSummary:
    stage: Stage = job.stage
    assert stage.spec.fingerprint
    return run_job(job, JobOptions(attempts=1), Console(file=io.StringIO()))
