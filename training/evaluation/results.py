"""What an evaluation found, as JSON and as a table, with all that the numbers depend on."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from training.evaluation.clip import ClipScore
from training.evaluation.frechet import Extrapolated
from training.evaluation.generation import GenerationRecord
from training.evaluation.statistics import Space

SCHEMA: Final = 1
_VERSIONS: Final = ("torch", "numpy", "pillow", "transformers")


@dataclass(frozen=True, slots=True)
class Pictures:
    """One side of a Fréchet distance."""

    source: str
    count: int
    digest: str  # of its mean and covariance


@dataclass(frozen=True, slots=True)
class FrechetScore:
    """A Fréchet distance with everything that moves it."""

    name: str  # FID, or what it is instead
    distance: float
    means: float
    covariances: float
    samples: Pictures
    reference: Pictures
    space: Space
    unbiased: Extrapolated | None


@dataclass(frozen=True, slots=True)
class Scores:
    """The record of `pipelines.evaluate score`."""

    samples: str
    count: int
    frechet: FrechetScore | None
    clip: ClipScore | None
    generation: GenerationRecord | None  # how the samples were drawn, where their folder says so
    warnings: tuple[str, ...]
    versions: dict[str, str]
    schema: int = SCHEMA


def versions() -> dict[str, str]:
    """The versions that the numbers were made with."""
    return {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}


def table(scores: Scores) -> str:
    """The scores for people."""
    rows = [("samples", f"{scores.samples}, N = {scores.count:,}"), *_rows(scores)]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}" for name, value in rows]
    return "\n".join([*lines, *(f"warning: {text}" for text in scores.warnings)])


def _rows(scores: Scores) -> Iterator[tuple[str, str]]:
    if scores.frechet is not None:
        yield from _frechet_rows(scores.frechet)
    if scores.clip is not None:
        yield from _clip_rows(scores.clip)
    if scores.generation is not None:
        yield from _generation_rows(scores.generation)
    yield "versions", ", ".join(f"{name} {number}" for name, number in scores.versions.items())


def _frechet_rows(score: FrechetScore) -> Iterator[tuple[str, str]]:
    yield score.name, f"{score.distance:.4f}  (means {score.means:.4f} + covariances {score.covariances:.4f})"
    if score.unbiased is not None:
        low = score.unbiased.points[0][0]
        yield (
            "  for N → ∞",
            f"{score.unbiased.distance:.4f}  (line in 1/N from N = {low:,}, errors to {score.unbiased.residual:.4f})",
        )
    yield "  reference", f"{score.reference.source}, N = {score.reference.count:,}, statistics {score.reference.digest}"
    yield "  features", f"{score.space.features}, {score.space.dim:,} wide, weights {score.space.features_digest}"
    yield "  pictures", score.space.preparation


def _clip_rows(score: ClipScore) -> Iterator[tuple[str, str]]:
    yield (
        "CLIP cosine",
        f"{score.cosine:.4f} ± {score.cosine_error:.4f}  (mean and standard error, N = {score.count:,})",
    )
    yield "  100 max(cos, 0)", f"{score.score_100:.2f}"
    yield "  2.5 max(cos, 0)", f"{score.score_hessel:.4f}  (CLIP-S of Hessel et al. 2021)"
    yield "  text", f"{score.template!r}, {score.truncated:,} longer than the model reads"
    yield "  model", f"{score.model}, files {score.model_digest}"


def _generation_rows(record: GenerationRecord) -> Iterator[tuple[str, str]]:
    how, models = record.settings, record.models
    yield "drawn by", f"weights {models.weights} ({models.kind}, after {models.images_seen} images), {models.precision}"
    yield "  sampler", f"{how.sampler}, {how.steps} steps, guidance {how.guidance:g}, seeds from {record.seed}"
    yield "  size", f"{how.height_px}x{how.width_px} px"
    yield "  prompts", f"{record.prompts}, {record.pictures:,} pictures, digest {record.prompts_digest}"


def require_all(record: GenerationRecord | None, found: int) -> Sequence[str]:
    """What to tell of a folder that should hold more pictures than it does."""
    if record is None or record.pictures == found:
        return ()
    return (f"{found:,} of {record.pictures:,} pictures are drawn; run the same pipelines.evaluate generate to go on",)


def plus_minus(error: float | None) -> str:
    """A standard error behind its mean, if there is one."""
    return "" if error is None else f" ± {error:.2g}"
