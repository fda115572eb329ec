"""What is in a manifest, and what a plan makes of it, as records that a person or a program can read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.reading import open_dataset
from training.data.manifest import Manifest, Places
from training.data.plan import Plan
from training.data.population import Population

_LENGTH_STEP: Final = 10  # tokens a bar of the histogram
_PIECE: Final = 1 << 20
_SHOWN: Final = 3  # samples that a batch names
_RANK_BITS: Final = 40


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """One aspect bucket, all datasets together."""

    size: str  # HEIGHTxWIDTH in pixels
    samples: int
    share: float
    latent_bytes: int  # without the flipped ones


@dataclass(frozen=True, slots=True)
class CaptionFacts:
    """One caption variant, of all datasets that have it."""

    variant: int
    samples: int
    bytes: int
    mean_tokens: float
    longest: int
    lengths: dict[str, int]  # samples by range of tokens
    truncated: dict[str, float]  # of each text data set as a whole, the share of captions cut at its token limit


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """One dataset of the mixture."""

    name: str
    samples: int
    weight: float
    captions: tuple[float, ...]
    flipped: float
    uses_an_epoch: float
    share_of_uses: float


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is to train on."""

    digest: str
    samples: int
    latents_without_text: int
    text_without_latents: int
    selected: int
    selected_but_absent: int
    bytes_a_sample: float  # latents and the mean of the captions that a sample has
    buckets: tuple[BucketFacts, ...]
    captions: tuple[CaptionFacts, ...]
    datasets: tuple[DatasetFacts, ...]


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What the plan makes of it."""

    policy: str
    plan_version: int
    policy_digest: str
    batches_first_epoch: int
    blocks_an_epoch: int
    least_samples: int
    most_samples: int


@dataclass(frozen=True, slots=True)
class ShuffleQuality:
    """How well samples are shuffled, and how local reads are, over `batches` batches of the first epoch.

    Each figure stands beside what it would be if all the data were shuffled.
    """

    batches: int
    position_correlation: float  # of place in the epoch and row, between samples of one bucket and dataset
    position_correlation_shuffled: float  # standard deviation of that of a random order
    neighbours_together: float  # share of samples whose next of the same bucket and dataset is in the same batch
    neighbours_together_shuffled: float
    files_a_batch: float  # latents files that a batch reads from
    files_a_batch_shuffled: float
    files_a_stretch: float  # latents files that 64 batches in a row read from
    files: int  # of all samples


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """One global batch."""

    step: int
    epoch: int
    bucket: str
    samples: int
    text_tokens: int
    dropped_captions: int
    flipped: int
    names: tuple[str, ...]  # its first samples


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """Where one sample is used."""

    name: str
    row: int
    bucket: str
    tokens: tuple[int, ...]
    epoch: int
    steps: tuple[int, ...]  # global batches that take the uses which this epoch draws


def contents(manifest: Manifest, plan: Plan) -> Contents:
    """What there is to train on. Reads all columns of the manifest once."""
    about, shares = manifest.about, plan.policy.datasets
    counts = np.zeros(len(manifest.buckets), np.int64)
    sizes = np.zeros(len(manifest.buckets), np.int64)
    for start in range(0, len(manifest), _PIECE):
        bucket = manifest.bucket[start : start + _PIECE]
        counts += np.bincount(bucket, minlength=len(counts))
        weights = manifest.latents.bytes[start : start + _PIECE]
        sizes += np.bincount(bucket, weights, len(counts)).astype(np.int64)
    captions = tuple(_caption_facts(manifest, number, places) for number, places in enumerate(manifest.text))
    samples = [stop - start for start, stop in zip(about.starts[:-1], about.starts[1:], strict=True)]
    uses = [float(share.exact_weight * size) for share, size in zip(shares, samples, strict=True)]
    text_bytes = sum(facts.bytes for facts in captions) / max(1, sum(facts.samples for facts in captions))
    return Contents(
        digest=manifest.digest,
        samples=len(manifest),
        latents_without_text=about.without_text,
        text_without_latents=about.without_latents,
        selected=about.selected,
        selected_but_absent=about.absent,
        bytes_a_sample=float(sizes.sum()) / len(manifest) + text_bytes,
        buckets=tuple(
            BucketFacts(f"{height}x{width}", int(count), int(count) / len(manifest), int(size))
            for (height, width), count, size in zip(manifest.buckets, counts, sizes, strict=True)
        ),
        captions=captions,
        datasets=tuple(
            DatasetFacts(share.name, size, share.weight, share.captions, share.flipped, use, use / sum(uses))
            for share, size, use in zip(shares, samples, uses, strict=True)
        ),
    )


def plan_facts(plan: Plan) -> PlanFacts:
    """What the plan makes of it."""
    least, most = plan.sizes()
    state = plan.state(0, 0)
    return PlanFacts(
        policy=plan.policy.describe(),
        plan_version=state.plan_version,
        policy_digest=state.policy_digest,
        batches_first_epoch=plan.steps_before(1),
        blocks_an_epoch=plan.blocks,
        least_samples=least,
        most_samples=most,
    )


def shuffle_quality(
    population: Population, plan: Plan, files: NDArray[np.int32], stretches: int = 8, stretch: int = 64
) -> ShuffleQuality:
    """Measured on `stretches` runs of `stretch` batches over the first epoch; `files` [N] is where each row lies."""
    steps = max(1, plan.steps_before(1))
    stretch = min(stretch, steps)
    firsts = np.unique(np.linspace(0, steps - stretch, min(stretches, steps)).astype(int)).tolist()
    runs = [[_placed(population, plan, step) for step in range(first, first + stretch)] for first in firsts]
    placed = [batch for run in runs for batch in run]
    correlation, samples = _correlation(placed)
    counts = {bucket: _file_counts(population, files, bucket) for bucket in {batch.bucket for batch in placed}}
    expected = [(len(b.rows) - 1) / max(1, counts[b.bucket].sum() - 1) for b in placed]
    return ShuffleQuality(
        batches=len(placed),
        position_correlation=correlation,
        position_correlation_shuffled=float(1 / np.sqrt(max(1, samples))),
        neighbours_together=float(np.mean([np.isin(b.names + 1, b.names).mean() for b in placed])),
        neighbours_together_shuffled=float(np.mean(np.minimum(1, expected))),
        files_a_batch=float(np.mean([len(np.unique(files[b.rows])) for b in placed])),
        files_a_batch_shuffled=float(np.mean([_distinct(counts[b.bucket], len(b.rows)) for b in placed])),
        files_a_stretch=float(np.mean([len(np.unique(files[np.concatenate([b.rows for b in run])])) for run in runs])),
        files=len(np.unique(files)),
    )


def batch_facts(manifest: Manifest, plan: Plan, step: int) -> BatchFacts:
    """The global batch of `step`."""
    batch = plan.batch(step)
    kept = batch.variants >= 0
    return BatchFacts(
        step=step,
        epoch=plan.epoch_of(step),
        bucket="x".join(map(str, manifest.buckets[batch.bucket])),
        samples=len(batch),
        text_tokens=int(manifest.tokens[batch.rows[kept], batch.variants[kept]].sum())
        + int((~kept).sum()) * len(manifest.null_text)
        if manifest.text
        else 0,
        dropped_captions=int((~kept).sum()),
        flipped=int(batch.flipped.sum()),
        names=tuple(manifest.name(row) for row in batch.rows[:_SHOWN].tolist()),
    )


def key_facts(manifest: Manifest, plan: Plan, row: int, epoch: int) -> KeyFacts:
    """Where the sample at `row` is used in `epoch`."""
    return KeyFacts(
        name=manifest.name(row),
        row=row,
        bucket="x".join(map(str, manifest.buckets[manifest.bucket[row]])),
        tokens=tuple(manifest.tokens[row].tolist()),
        epoch=epoch,
        steps=tuple(plan.find(row, epoch)),
    )


def _caption_facts(manifest: Manifest, variant: int, places: Places) -> CaptionFacts:
    tokens = np.zeros(1 << 16, np.int64)  # samples by length
    size = 0
    for start in range(0, len(manifest), _PIECE):
        tokens += np.bincount(manifest.tokens[start : start + _PIECE, variant], minlength=len(tokens))
        size += int(places.bytes[start : start + _PIECE].sum(dtype=np.int64))
    tokens[0] = 0  # lacks the variant
    lengths = np.flatnonzero(tokens)
    total = int(tokens.sum())
    bars = Counter[int]()
    for length in lengths.tolist():
        bars[(length - 1) // _LENGTH_STEP] += int(tokens[length])
    return CaptionFacts(
        variant=variant + 1,
        samples=total,
        bytes=size,
        mean_tokens=float(lengths @ tokens[lengths]) / max(1, total),
        longest=int(lengths.max(initial=0)),
        lengths={f"{bar * _LENGTH_STEP + 1}-{(bar + 1) * _LENGTH_STEP}": bars[bar] for bar in sorted(bars)},
        truncated={store.url: _truncated(store.url) for store in places.stores},
    )


def _truncated(url: str) -> float:
    entries = open_dataset(url, "text").entries
    return sum(entry.counts.get("truncated", 0) for entry in entries) / max(1, sum(e.rows_kept for e in entries))


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A batch whose samples are numbered: neighbours in one bucket of one dataset have neighbouring names."""

    step: int
    bucket: int
    rows: NDArray[np.int64]
    datasets: NDArray[np.int64]
    names: NDArray[np.int64]


def _placed(population: Population, plan: Plan, step: int) -> _Placed:
    batch = plan.batch(step)
    datasets, names = population.datasets_of(batch.rows), np.empty(len(batch), np.int64)
    for stratum in population.strata:
        if stratum.bucket == batch.bucket:
            mine = datasets == stratum.dataset
            members = population.members[stratum.first : stratum.first + stratum.size]
            ranks = np.searchsorted(members, batch.rows[mine].astype(members.dtype))
            names[mine] = ranks + (stratum.dataset << _RANK_BITS)
    return _Placed(step, batch.bucket, batch.rows, datasets, names)


def _correlation(placed: Sequence[_Placed]) -> tuple[float, int]:
    """Correlation of step and rank in each bucket of each dataset, weighted by samples; and how many samples."""
    names = np.concatenate([batch.names for batch in placed])
    steps = np.concatenate([np.full(len(batch.rows), batch.step) for batch in placed])
    buckets = np.concatenate([np.full(len(batch.rows), batch.bucket) for batch in placed])
    groups = buckets + ((names >> _RANK_BITS) << _RANK_BITS)
    total, samples = 0.0, 0
    for group in np.unique(groups):
        mine = groups == group
        if np.ptp(names[mine]) and np.ptp(steps[mine]):
            total += float(np.corrcoef(steps[mine], names[mine])[0, 1]) * int(mine.sum())
            samples += int(mine.sum())
    return total / max(1, samples), samples


def _file_counts(population: Population, files: NDArray[np.int32], bucket: int) -> NDArray[np.int64]:
    """How many samples of `bucket` each file has that has any."""
    strata = [s for s in population.strata if s.bucket == bucket]
    rows = np.concatenate([population.members[s.first : s.first + s.size] for s in strata])
    return np.unique(files[rows], return_counts=True)[1]


def _distinct(counts: NDArray[np.int64], size: int) -> float:
    """Expected distinct files of `size` samples drawn at random from files with `counts` samples."""
    return float((1 - (1 - counts / counts.sum()) ** size).sum())
