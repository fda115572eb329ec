"""The filters whose edges the report shows: as the captions' rules and the selection's recipe say, else the usual."""

from collections.abc import Mapping
from typing import Any, Final

from curation.captions.quality_thresholds import Thresholds
from curation.report.edges import Threshold
from schemas.dataset import DatasetInfo

LABELS: Final[Mapping[str, str]] = {
    "min_side": "shorter side (px)",
    "aspect": "aspect ratio (longer over shorter side)",
    "pixels": "height × width (px)",
    "repeated_4grams": "repeated 4-grams (share)",
    "compression": "compression (bytes over compressed bytes)",
    "n_words": "words",
    "n_tokens": "generated tokens",
    "n_t5_tokens": "T5 tokens",
    "mean_logprob": "mean log-probability",
    "nouns": "nouns",
    "propns": "proper nouns",
    "distinct": "distinct nouns",
    "luma_mean": "mean luma",
    "luma_std": "contrast (standard deviation of the luma)",
}
"""Measures as words; others go by their own name."""

_MIN_SIDE_PX: Final = 256.0
_ASPECT: Final = 3.0
_T5_TOKENS: Final = 120.0


def usual_thresholds(captions: DatasetInfo, latents: DatasetInfo | None) -> tuple[Threshold, ...]:
    """The picture's size and shape, then the caption's repetition and length.

    With a latents dataset the shorter side is held against the resolution it was made for: smaller pictures were
    enlarged. The captions' limits are those that they were judged by, where their dataset says.
    """
    resolution = (latents.facts if latents else {}).get("resolution")
    side = float(resolution) if isinstance(resolution, int) else _MIN_SIDE_PX
    why_side = (
        "the latents' resolution: smaller pictures are enlarged" if resolution else "the paper's first resolution"
    )
    rules = _rules(captions.config)
    longer = rules.compression_min_words
    return (
        _threshold("min_side", why_side, least=side),
        _threshold("aspect", "DataComp's basic filter", most=_ASPECT),
        _threshold("repeated_4grams", "caption rules: more is repetition", most=rules.max_repeated_4grams),
        _threshold(
            "compression",
            f"caption rules: more is repetition, in captions of over {longer} words",
            most=rules.max_compression,
            min_words=longer + 1,
        ),
        _threshold("n_words", "caption rules: fewer are too short", least=float(rules.min_words)),
        _threshold("n_t5_tokens", "PixArt-α's text limit: more is cut off", most=_T5_TOKENS),
    )


def with_recipe(usual: tuple[Threshold, ...], recipe: tuple[Threshold, ...]) -> tuple[Threshold, ...]:
    """The recipe's thresholds, then those usual ones on measures that the recipe does not mention."""
    named = {one.measure for one in recipe}
    return (*recipe, *(one for one in usual if one.measure not in named))


def _threshold(measure: str, why: str, **limits: Any) -> Threshold:
    return Threshold(measure, LABELS[measure], why, **limits)


def _rules(config: Mapping[str, Any]) -> Thresholds:
    """The thresholds that captions were judged by: those in the `config` of their dataset, else the usual ones."""
    told = config.get("thresholds")
    known = Thresholds.__dataclass_fields__.keys()
    return Thresholds(**{k: v for k, v in told.items() if k in known}) if isinstance(told, Mapping) else Thresholds()
