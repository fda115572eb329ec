"""A small hand-made set of datasets whose every number is known, written through curation.shards.

Shard `s0` has eight rows: k0 to k5 are readable, k6 is corrupt and k7 too small. k0 to k3 have usable captions. k1 has
no latents; k4 and k5 have latents but no usable caption.
"""

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from curation.nouns.counting import CountingRules, NounCounter
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo
from curation.report.inputs import CorpusInputs
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, DatasetInfo, PlannedUnit, RunFacts, index_path, table_path, tar_path
from schemas.record import to_json
from schemas.selection import make_selection, write_selection
from schemas.status import RejectReason
from schemas.tables import CAPTIONS, LATENTS_INDEX, MEASURES, NOUN_TOTALS, NOUNS, NOUNS_PER_IMAGE, TEXT_INDEX

FINGERPRINT = "f" * 32
MALICIOUS = "<script>alert('x')</script> <img src=http://evil.example/x onerror=alert(1)> & \"quoted\""
VERSIONS = {"python": "3.11.9", "latentmill": "0.1.0"}

# key: raw caption, generated, cleaned, status, T5 tokens
ROWS: dict[str, tuple[str | None, str, str, str, int | None]] = {
    "d/k0": ("a dog", "A dog sits on the grass.", "A dog sits on the grass.", "ok", 8),
    "d/k1": ("a cat here", "A cat lies on a red mat.", "A cat lies on a red mat.", "ok", 90),
    "d/k2": (None, MALICIOUS, MALICIOUS, "ok", None),
    "d/k3": (MALICIOUS, "Two birds fly. And the", "Two birds fly.", "trimmed", 130),
    "d/k4": ("", "so so so so so so", "", "repetition", None),
    "d/k5": ("a tree", "I'm sorry, I cannot see it.", "", "refusal", None),
}

RANGE: dict[str, Any] = {"column": "captions.n_words", "min": 5, "max": None, "allow_null": False}
SELECTION = {
    "recipe": {
        "name": "good",
        "description": "what is good",
        "filters": [
            {"name": "long enough", "test": RANGE},
            {"name": "nouns", "test": {**RANGE, "column": "nouns.nouns", "min": 3}},
            {"name": "usable", "test": {"column": "status", "values": ["ok"], "keep": True, "allow_null": False}},
            {"name": "alike", "test": {"column": "phash", "within": 4, "prefer": None}},
            {"name": "pretty", "test": {**RANGE, "column": "aesthetic"}},
        ],
    },
    "samples": 6,
    "selected": 2,
    "funnel": [{"name": "long enough", "total": 3, "marginal": 3, "unique": 1, "left": 3, "depends_on_others": False}],
}
"""What a selection says of how it was made."""


@dataclass(frozen=True, slots=True)
class Datasets:
    """The directories; `shard` is the tar with the pictures of s0."""

    root: Path
    captions: Path
    nouns: Path
    latents: Path
    text: Path
    run: Path
    shard: Path

    @property
    def inputs(self) -> CorpusInputs:
        """All of them."""
        return CorpusInputs(
            captions=str(self.captions),
            nouns=str(self.nouns),
            latents=str(self.latents),
            text=str(self.text),
            run=str(self.run),
            shards=(str(self.shard),),
            source="webdataset",
        )


@pytest.fixture
def write_captions(tmp_path: Path) -> Callable[..., Path]:
    """Write the captions dataset in units that begin at `starts`: `write_captions("captions", starts=(0, 4))`."""

    def write(folder: str, starts: Sequence[int] = (0, 4)) -> Path:
        root = tmp_path / folder
        target = _dataset(root, "captions", "caption", "webdataset", {"model": "hub:a/b@c", "prompt": MALICIOUS})
        keys = [*ROWS, "d/k6", "d/k7"]
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            unit = PlannedUnit(f"s0-{start:05d}", "s0", start, stop)
            with UnitWriter(target, unit, "caption") as writer:
                sink = writer.table(table_path(unit.name), CAPTIONS)
                for key in keys[start:stop]:
                    if key == "d/k6":
                        writer.reject(key, RejectReason.CORRUPT, "JPEG <b>ends</b> early")
                    elif key == "d/k7":
                        writer.reject(key, RejectReason.TOO_SMALL, "8x8 px")
                    else:
                        sink.write([_caption_row(key)])
                        writer.keep(key)
                        writer.count(f"status {ROWS[key][3]}")
                facts = RunFacts(4.0, {"decode": 1.0, "model": 3.0}, 1, "host", VERSIONS)
                writer.commit(FINGERPRINT, [], facts)
        target.write_text("runs/20250611T081500.000000Z.json", _run(seconds=5.0, units_done=2, rows_in=8))
        target.write_text("runs/20250611T091500.000000Z.json", _run(seconds=0.1, units_done=0, rows_in=0))
        target.write_text("runs/20250611T071500.000000Z.json", '{"torn')
        return root

    return write


@pytest.fixture
def datasets(tmp_path: Path, write_captions: Callable[..., Path]) -> Datasets:
    """All datasets, a training run, and the shard."""
    made = Datasets(
        tmp_path,
        write_captions("captions"),
        tmp_path / "nouns",
        tmp_path / "latents",
        tmp_path / "text",
        tmp_path / "run",
        tmp_path / "s0.tar",
    )
    _write_nouns(made.nouns)
    _write_latents(made.latents)
    _write_text(made.text)
    _write_run(made.run)
    _write_shard(made.shard)
    return made


@pytest.fixture
def about() -> dict[str, Any]:
    """What `selection` says of how it was made."""
    return SELECTION


@pytest.fixture
def selection(tmp_path: Path, about: dict[str, Any]) -> Path:
    """A selection of d/k0 alone, with its account."""
    path = tmp_path / "kept.parquet"
    write_selection(str(path), make_selection(pa.table({"shard": ["s0"], "key": ["d/k0"]}), about))
    return path


@pytest.fixture
def measures(tmp_path: Path) -> Path:
    """Measures of d/k0 to d/k2 in s0, and of d/k0 in s1; d/k1 has no aesthetic score, and s0 no pwatermark."""
    root = tmp_path / "measures"
    root.mkdir()
    (root / DATASET_FILE).write_text(to_json(DatasetInfo("measures", 1, "measure", {}, "f" * 32, "webdataset", "m", 0)))
    rows = {
        "s0": [("d/k0", 1.0, [("aesthetic", 5.5)]), ("d/k1", 2.0, []), ("d/k2", 3.0, [("aesthetic", 0.2)])],
        "s1": [("d/k0", 9.0, [("aesthetic", 9.0), ("pwatermark", 0.5)])],
    }
    for shard, found in rows.items():
        with UnitWriter(Target(str(root)), PlannedUnit(shard, shard, 0, len(found)), "measure") as writer:
            sink = writer.table(table_path(shard), MEASURES)
            for key, sharpness, extra in found:
                row = {"key": key, "shard": shard, "width": 9, "height": 9, "phash": None, "luma_mean": 1.0}
                sink.write([row | {"luma_std": 1.0, "sharpness": sharpness, "extra": extra}])
                writer.keep(key)
            writer.commit("f" * 32, [], RunFacts(1.0, {}, 1, "host", {}))
    return root


def _dataset(root: Path, kind: str, stage: str, source: str, config: dict[str, Any]) -> Target:
    root.mkdir()
    info = DatasetInfo(kind, 1, stage, config, FINGERPRINT, source, f"{kind}-id", 4)
    (root / DATASET_FILE).write_text(to_json(info))
    return Target(str(root))


def _run(**values: float) -> str:
    return json.dumps({"exit_code": 0, "stopped_by": "", **values})


def _caption_row(key: str) -> dict[str, Any]:
    raw, generated, caption, status, t5 = ROWS[key]
    return {
        "key": key,
        "shard": "s0",
        "width": 640,
        "height": 320,
        "raw_caption": raw,
        "generated": generated,
        "caption": caption,
        "status": status,
        "flags": ["stock_opening"] if key == "d/k0" else [],
        "finish_reason": "length" if status == "trimmed" else "stop",
        "error": None,
        "n_prompt_tokens": 600,
        "n_tokens": len(generated.split()),
        "n_t5_tokens": t5,
        "n_words": len(generated.split()),
        "repeated_4grams": 0.4 if status == "repetition" else 0.01,
        "compression": 1.5,
        "mean_logprob": -0.5,
        "prompt_id": "p",
        "rules_version": 1,
        "seed": -1,
    }


def _write_nouns(root: Path) -> None:
    rules = CountingRules(TaggerInfo("small", "1.0", "d" * 32, "3.8"), Normalisation.LOWER)
    config = {"tagger": dataclasses.asdict(rules.tagger), "normalisation": "lower"}
    target = _dataset(root, "nouns", "nouns", "captions:captions-id", config)
    counter = NounCounter(rules)
    for noun in ("dog", "cat", "tree"):
        counter.add_caption("raw_caption", TaggedCaption(2, (TaggedNoun(noun, False),)))
    counter.add_empty("raw_caption", 3)
    counter.add_caption("caption", TaggedCaption(20, tuple(TaggedNoun("dog", False) for _ in range(11))))
    counter.add_caption("caption", TaggedCaption(4, (TaggedNoun("cat", False), TaggedNoun("<b>paris</b>", True))))
    counts = counter.counts()
    per_image = [
        {"key": key, "shard": "s0", "column": column, "nouns": n, "propns": 1, "tokens": 9 * (n > 0), "distinct": ["a"]}
        for key, n in (("d/k0", 10), ("d/k1", 2), ("d/k4", 0))
        for column in ("raw_caption", "caption")
    ]
    unit = PlannedUnit("s0-00000", "s0", 0, 6)
    with UnitWriter(target, unit, "nouns") as writer:
        writer.table(table_path(unit.name), NOUNS, row_per_key=False).write_table(counts.nouns)
        writer.table(f"totals/{unit.name}.parquet", NOUN_TOTALS, row_per_key=False).write_table(counts.totals)
        per_image_sink = writer.table(f"per_image/{unit.name}.parquet", NOUNS_PER_IMAGE, row_per_key=False)
        per_image_sink.write(per_image)
        for i in range(6):
            writer.keep(str(i))
        writer.commit(FINGERPRINT, [], RunFacts(0.5, {"model": 0.4}, 1, "host", VERSIONS))


def _write_latents(root: Path) -> None:
    target = _dataset(root, "latents", "latents", "webdataset", {"vae": "hub:v/v@1"})
    with UnitWriter(target, PlannedUnit("s0", "s0", 0, 8), "latents") as writer:
        tar, index = writer.tar(tar_path("s0")), writer.table(index_path("s0"), LATENTS_INDEX)
        for key in ("d/k0", "d/k2", "d/k3", "d/k4", "d/k5"):
            wide = key == "d/k5"
            offset, length = tar.add(key, "latent.npy", b"\1" * (2000 if wide else 1000))
            size = (
                {"height_px": 192, "width_px": 320, "bucket": "192x320"}
                if wide
                else {"height_px": 256, "width_px": 256}
            )
            row = {
                "key": key,
                "shard": "s0",
                "offset": offset,
                "bytes": length,
                "xxh3": 1,
                "bucket": "256x256",
                **size,
            }
            row |= {"original_height": 320, "original_width": 640, "resized_height": 256, "resized_width": 512}
            crop = {"crop_top": 0, "crop_left": 0 if wide else 128, "flipped": wide}
            index.write([row | crop | {"label": 3 if wide else None}])
            writer.keep(key)
        writer.reject("d/k1", RejectReason.NON_FINITE, "NaN")
        writer.reject("d/k6", RejectReason.CORRUPT, "JPEG")
        writer.reject("d/k7", RejectReason.TOO_SMALL, "8x8 px")
        writer.commit(FINGERPRINT, [], RunFacts(2.0, {"decode": 1.5, "model": 0.5}, 2, "host", VERSIONS))


def _write_text(root: Path) -> None:
    target = _dataset(root, "text", "text", "captions:captions-id:caption", {"t5": "hub:t/t@1"})
    with UnitWriter(target, PlannedUnit("s0-00000", "s0", 0, 6), "text") as writer:
        tar, index = writer.tar(tar_path("s0-00000")), writer.table(index_path("s0-00000"), TEXT_INDEX)
        for key, tokens in (("d/k0", 8), ("d/k1", 90), ("d/k2", 30), ("d/k3", 120)):
            offset, length = tar.add(key, "text.npy", b"\2" * (tokens * 10))
            row = {"key": key, "shard": "s0", "offset": offset, "bytes": length, "xxh3": 1, "caption_xxh64": 1}
            index.write([row | {"tokens": tokens, "truncated": key == "d/k3"}])
            writer.keep(key)
        for key in ("d/k4", "d/k5"):
            writer.reject(key, RejectReason.UNUSABLE_CAPTION, f"status {ROWS[key][3]}")
        writer.commit(FINGERPRINT, [], RunFacts(1.0, {"model": 1.0}, 1, "host", VERSIONS))


def _write_run(root: Path) -> None:
    root.mkdir()
    lines = [
        json.dumps({"step": 10 * i, "images": 80 * i, "seconds": 2.0, "loss": 1.0 / i, "step_loss": [1.0]})
        for i in range(1, 6)
    ]
    (root / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 60, "lo']))
    (root / "summary.json").write_text(json.dumps({"steps": 50, "last_loss": 0.2, "images_per_second": 40.0}))


def _write_shard(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for i, key in enumerate(ROWS):
            buffer = io.BytesIO()
            Image.new("RGB", (640, 320), (40 * i, 80, 120)).save(buffer, "JPEG")
            content = b"no picture at all" if key == "d/k4" else buffer.getvalue()
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
