"""Make some rows again from their source, and compare with what is stored.

The model is set up as dataset.json says. On the machine that made a dataset the rows come out bit by bit; elsewhere
other kernels move the last bits, so that a relative L2 distance ||made - stored|| / ||stored|| up to a limit is taken
for the same (another caption or picture is off by about 1).
"""

import random
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.checkpoints import Checkpoint
from curation.compute import Compute
from curation.execution.clock import PhaseClock
from curation.execution.stage import Unit
from curation.features.codec import encode
from curation.features.latents import BucketChoice, LatentsStage, LatentsWorker
from curation.features.storage import parse_member
from curation.features.t5 import TextEncoder
from curation.features.vae import describe_vae
from curation.images.decode import DecodePolicy
from curation.images.reading import RefusedRow, decoded_samples
from curation.shards.shard_index import ensure_index, read_samples, stored_index
from curation.shards.target import Target
from curation.shards.urls import shard_name
from curation.sources.base import Source
from curation.verify.features import INDEXES
from curation.verify.files import read_columns
from curation.verify.findings import Findings
from schemas.dataset import LedgerEntry, PlannedUnit, index_path, table_path, tar_path
from schemas.embedding import decode_embedding
from schemas.errors import SchemaError, UserError
from schemas.reading import Dataset

TOLERANCES: Final = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""Relative L2 distance by compute type: a few roundings of the type, and not less than the float16 on disk has."""

_CHECK: Final = "re-encoded"


@dataclass(frozen=True, slots=True)
class Draw:
    """Which rows are made again, and where. `tolerance` None takes that of the compute type."""

    rows: int
    seed: int = 0
    tolerance: float | None = None
    device: str = "cpu"

    def limit(self, config: Mapping[str, Any]) -> float:
        """The relative L2 distance taken for the same, for a dataset of this configuration."""
        return TOLERANCES[config["dtype"]] if self.tolerance is None else self.tolerance


@dataclass(slots=True)
class Reencoded:
    """How the rows that were made again compare. `worst` is the largest relative L2 distance."""

    dataset: str
    tolerance: float
    rows: int = 0
    equal: int = 0  # bit by bit
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class _Stored:
    entry: LedgerEntry
    row: dict[str, Any]  # of the index
    values: npt.NDArray[np.float16]

    @property
    def name(self) -> str:
        return f"{self.row['shard']}/{self.row['key']}"


def check_latents(
    dataset: Dataset,
    shards: Sequence[str],
    source: Source,
    vae: Checkpoint,
    draw: Draw,
    findings: Findings,
) -> Reencoded:
    """Encode some pictures of `shards` again with `vae` and compare posterior, sizes, crop and label.

    Raises `UserError` if the source or the VAE is not that of the dataset.
    """
    config = dataset.info.config
    _require(dataset, "vae", vae.identity)
    _require(dataset, "source", {"name": source.name, "version": source.version})
    urls = {shard_name(url): url for url in shards}
    out = Reencoded(dataset.url, draw.limit(config))
    with tempfile.TemporaryDirectory(prefix="latentmill-verify-") as scratch:
        stage = LatentsStage(
            target=Target(dataset.url),
            source=source,
            vae=describe_vae(vae),
            resolution=config["resolution"],
            buckets=_bucket_choice(config["buckets"]),
            policy=_policy(config["decode"]),
            batch_size=config["batch_size"],
            compute=Compute(draw.device, config["dtype"], config["cpu_threads"]),
            decode_threads=0,
            flip=config.get("flip", False),
        )
        with closing(stage.open()) as worker:
            for stored in _chosen(dataset, [e for e in dataset.entries if e.shard in urls], draw, findings):
                url = urls[stored.entry.shard]
                target = _indexed(stage.target, Target(scratch), url, source, stored.entry, findings)
                if target is None:
                    continue
                made = _encode_picture(replace(stage, target=target), worker, url, stored)
                if isinstance(made, str):
                    findings.wrong(_CHECK, f"{dataset.url}: {stored.name}", made)
                    continue
                differing = [name for name, value in made[0].items() if stored.row[name] != value]
                if differing:
                    what = ", ".join(f"{name} {made[0][name]}, stored {stored.row[name]}" for name in differing)
                    findings.wrong(_CHECK, f"{dataset.url}: {stored.name}", f"its source gives {what}")
                _compare(out, stored, made[1], findings)
    return out


def check_text(
    dataset: Dataset,
    captions: Dataset,
    t5: Checkpoint,
    draw: Draw,
    findings: Findings,
) -> Reencoded:
    """Embed some captions of `captions` again with `t5` and compare. Raises `UserError` if the T5 is another one."""
    config = dataset.info.config
    _require(dataset, "t5", t5.identity)
    out = Reencoded(dataset.url, draw.limit(config))
    units = {entry.unit for entry in captions.entries}
    encoder = TextEncoder(t5, Compute(draw.device, config["dtype"], config["cpu_threads"]))
    with closing(encoder):
        for stored in _chosen(dataset, [e for e in dataset.entries if e.unit in units], draw, findings):
            table = read_columns(captions, table_path(stored.entry.unit), ["key", config["column"]])
            texts = dict(zip(table["key"].to_pylist(), table[config["column"]].to_pylist(), strict=True))
            text = texts.get(stored.row["key"])
            if text is None:
                findings.wrong(_CHECK, f"{dataset.url}: {stored.name}", f"no {config['column']} in {captions.url}")
                continue
            (embedding,) = encoder.encode(encoder.tokens([text], config["max_tokens"]))
            packed = encode(embedding, dataset.info.facts["codec"])
            if packed is None:
                findings.wrong(_CHECK, f"{dataset.url}: {stored.name}", "not finite when it is made again")
            else:
                _compare(out, stored, decode_embedding(packed, "the embedding"), findings)
    return out


def _require(dataset: Dataset, what: str, given: Any) -> None:
    """Raise `UserError` unless the dataset was made with `given`."""
    made = dataset.info.config.get(what)
    if made != given:
        raise UserError(f"{dataset.url}: was made with {what} {made}, not {given}. Give the one it was made with.")


def _bucket_choice(name: str) -> BucketChoice:
    return "aspect" if name == "aspect" else "square"


def _policy(config: Mapping[str, Any]) -> DecodePolicy:
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
    return DecodePolicy(**settings)


def _chosen(dataset: Dataset, entries: Sequence[LedgerEntry], draw: Draw, findings: Findings) -> Iterator[_Stored]:
    """`draw.rows` rows of `entries` drawn alike, in order; those that cannot be read are told elsewhere."""
    ends = list(accumulate(entry.rows_kept for entry in entries))
    total = ends[-1] if ends else 0
    if not total:
        findings.wrong(_CHECK, dataset.url, "none of its shards is in the source that was given")
    for number in sorted(random.Random(draw.seed).sample(range(total), min(draw.rows, total))):
        place = bisect_right(ends, number)
        entry = entries[place]
        index = read_columns(dataset, index_path(entry.unit), INDEXES[dataset.info.kind].arrow.names)
        (row,) = index.slice(number - (ends[place] - entry.rows_kept), 1).to_pylist()
        with dataset.fs.open(dataset.path(tar_path(entry.unit)), "rb") as tar:
            tar.seek(row["offset"])
            content = tar.read(row["bytes"])
        try:
            yield _Stored(entry, row, decode_embedding(parse_member(content, "the member"), "the member"))
        except SchemaError as error:
            findings.wrong(_CHECK, f"{dataset.url}: {row['shard']}/{row['key']}", str(error))


def _indexed(
    target: Target, scratch: Target, url: str, source: Source, entry: LedgerEntry, findings: Findings
) -> Target | None:
    """Where the index of the shard `url` lies: in the dataset, or made anew in `scratch`. None if the shard is not the
    one that `entry` was made from."""
    index, found = stored_index(target, url, source.container), target
    if index is None:
        index, found = ensure_index(scratch, url, source.container), scratch
    made_from = {identity.digest for identity in entry.inputs}
    if index.identity.digest not in made_from:
        findings.wrong(_CHECK, url, f"not the shard that {entry.unit} was made from: its content changed")
        return None
    return found


def _encode_picture(
    stage: LatentsStage, worker: LatentsWorker, url: str, stored: _Stored
) -> tuple[dict[str, Any], npt.NDArray[np.float16]] | str:
    """The index columns and the posterior of the stored row, made again; or why not."""
    entry, key = stored.entry, stored.row["key"]
    samples = read_samples(stage.target, url, entry.start, entry.stop)
    row = next((entry.start + i for i, sample in enumerate(samples) if sample.key == key), None)
    if row is None:
        return "its source has no such key"
    unit = Unit(PlannedUnit(entry.unit, entry.shard, row, row + 1), url, ())
    read = decoded_samples(
        stage.target,
        unit,
        stage.source,
        stage.policy,
        at_least=stage.at_least,
        threads=0,
        ahead=1,
        clock=PhaseClock(),
    )
    with closing(read):
        (picture,) = list(read)
    if isinstance(picture, RefusedRow):
        return f"its picture is refused now: {picture.reason} ({picture.detail})"
    columns, posterior = worker.encode_alone(picture)
    return "not finite when it is made again" if posterior is None else (columns, posterior)


def _compare(out: Reencoded, stored: _Stored, made: npt.NDArray[np.float16], findings: Findings) -> None:
    where = f"{out.dataset}: {stored.name}"
    out.rows += 1
    if made.shape != stored.values.shape:
        findings.wrong(_CHECK, where, f"made again it is {made.shape}, stored {stored.values.shape}")
        return
    if np.array_equal(made, stored.values):
        out.equal += 1
        return
    reference = stored.values.astype(np.float64)
    distance = float(np.linalg.norm(made - reference) / max(float(np.linalg.norm(reference)), 1e-12))
    out.worst = max(out.worst, distance)
    if not distance <= out.tolerance:
        findings.wrong(_CHECK, where, f"made again it is off by {distance:.2g}, the limit is {out.tolerance:g}")
