"""The numbers that the caption rules compare with. Part of the fingerprint of whatever was judged by them."""

import dataclasses
import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import UserError


def _number(default: float, meaning: str, least: float = 0.0, most: float = math.inf) -> Any:
    return field(default=default, metadata={"meaning": meaning, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When each rule fires. Raises `UserError` for a value out of its range."""

    min_words: int = _number(5, "fewer words are too_short")
    max_words: int = _number(300, "more words are flagged too_long", 1)
    max_repeated_4grams: float = _number(0.25, "largest share of 4-grams that came before", 0, 1)
    max_repeated_sentences: int = _number(0, "sentences said again word by word")
    max_alike_sentences: int = _number(2, "sentences that only vary an earlier one")
    max_compression: float = _number(2.7, "UTF-8 bytes over zlib's, of any 100 words in a row", 1)
    compression_min_words: int = _number(40, "shorter captions are not judged by their compression")
    max_stutter: int = _number(3, "the same word in a row", 1)
    min_variety: float = _number(0.55, "distinct words in 50, on average; fewer are flagged low_variety", 0, 1)
    refusal_within: int = _number(200, "characters in which a refusal begins", 1)
    echo_words: int = _number(6, "words in a row of the prompt that make a leak", 2)
    trim_keeps: float = _number(0.5, "share of the characters that must stay for a cut caption to be trimmed", 0, 1)
    open_end_words: int = _number(20, "from so many words on, an open last sentence was cut, whatever the engine says")
    strip_openings: int = _number(1, "1: take stock openings off the cleaned text; 0: only flag them", 0, 1)
    min_ascii_letters: float = _number(
        0.9, "share of letters that are ASCII, in English (0.2 less among English function words)", 0, 1
    )
    min_function_words: float = _number(0.1, "share of function words of English, in 20 words and more", 0, 1)
    max_foreign: float = _number(0.25, "share of words in passages of another language", 0, 1)
    min_logprob: float = _number(-1.0, "mean log-probability below which a caption is flagged uncertain", -math.inf)
    duplicate_rows: int = _number(3, "rows with the same text that make it duplicate_text; 0: never")

    def __post_init__(self) -> None:
        for known in dataclasses.fields(self):
            value, limits = getattr(self, known.name), known.metadata
            if not (math.isfinite(value) and limits["least"] <= value <= limits["most"]):
                raise UserError(
                    f"threshold {known.name}={value:g}: must be a number from {limits['least']:g} to "
                    f"{limits['most']:g} ({limits['meaning']})."
                )
        if self.duplicate_rows == 1:
            raise UserError("threshold duplicate_rows=1: would call every text a duplicate. Give 2 or more, or 0.")


def thresholds_with(changes: Iterable[str]) -> Thresholds:
    """The default thresholds with `changes`, each `NAME=VALUE`. Raises `UserError` for unknown names and bad values."""
    types = typing.get_type_hints(Thresholds)
    given: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in types:
            raise UserError(f"threshold {name!r}: unknown; known are {', '.join(types)}.")
        if name in given:
            raise UserError(f"threshold {name}: given twice.")
        try:
            given[name] = types[name](value)
        except ValueError:
            raise UserError(f"threshold {change!r}: {types[name].__name__} expected, as in {name}=5.") from None
    return Thresholds(**given)


def describe_thresholds() -> list[str]:
    """One line a threshold: its name, default and meaning."""
    return [f"{f.name}={f.default:g}  {f.metadata['meaning']}" for f in dataclasses.fields(Thresholds)]
