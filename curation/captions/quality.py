"""What one caption is worth: cleaned text, one status, flags. A pure function of the engine's answer, versioned.

The raw text is never changed. Only measures of a single caption live here; those that need the whole dataset (the same
text on many pictures) come later in the flow.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Final

from curation.captions.engine import FinishReason
from schemas.status import CaptionStatus

RULES_VERSION: Final = 1

_MIN_WORDS: Final = 5
_MAX_REPEATED_4GRAMS: Final = 0.20
_MAX_COMPRESSION: Final = 2.4
_COMPRESSION_MIN_WORDS: Final = 40
_TRIM_KEEPS_AT_LEAST: Final = 0.5

_REFUSAL: Final = re.compile(
    r"\b(I'm sorry|I am sorry|I cannot|I can't|I am unable|I'm unable|as an AI|unable to (see|view)|"
    r"no image (was|is|has been)|provide (the|an) image)\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN: Final = 200
_LEAK: Final = re.compile(r"USER:|ASSISTANT:|<image>|###|\[/?INST\]|<\|im_(start|end)\|>|</?s>")
_OPENING: Final = re.compile(
    r"^(The|This) (image|picture|photo|photograph|scene)\b[^.]{0,20}?\b"
    r"(features|depicts|shows|showcases|captures|displays|presents|portrays)\s+|"
    r"^In (the|this) (image|picture|photo),?\s+",
    re.IGNORECASE,
)
_SENTENCE_END: Final = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of a generated text, whatever the rules make of them; the columns of the captions table."""

    n_words: int
    repeated_4grams: float | None  # share of 4-grams that came before; None under 4 words
    compression: float | None  # bytes over zlib-compressed bytes; None if empty


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The verdict on one caption; `text` is empty where nothing usable is left. `flags` are sorted."""

    text: str
    status: CaptionStatus
    flags: tuple[str, ...]


def clean(generated: str, finish_reason: FinishReason) -> Cleaned:
    """Judge one generated caption by the rules of version `RULES_VERSION`.

    The first rule that makes a caption unusable decides its status: engine error, empty, prompt leak, refusal,
    repetition (share of repeated 4-grams above 0.20, a repeated sentence, or zlib compression above 2.4), truncated
    (ended by the token limit and no half of it ends in whole sentences), too short (under 5 words). A truncated caption
    that keeps at least half of its characters is cut to its last whole sentence and is `trimmed`.
    """
    if finish_reason == "error":
        return Cleaned("", CaptionStatus.ENGINE_ERROR, ())
    text = " ".join(generated.split())
    flags: set[str] = set()
    if _OPENING.match(text):
        flags.add("stock_opening")
    if not text:
        return Cleaned("", CaptionStatus.EMPTY, ())
    for status, applies in (
        (CaptionStatus.LEAK, _LEAK.search(text) is not None),
        (CaptionStatus.REFUSAL, _REFUSAL.search(text[:_REFUSAL_WITHIN]) is not None),
        (CaptionStatus.REPETITION, repeats(text)),
    ):
        if applies:
            return Cleaned("", status, tuple(sorted(flags)))
    status = CaptionStatus.OK
    is_open = _SENTENCE_END.search(text[-4:]) is None
    if finish_reason == "length" and is_open:
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        if not ends or ends[-1] < _TRIM_KEEPS_AT_LEAST * len(text):
            return Cleaned("", CaptionStatus.TRUNCATED, tuple(sorted(flags)))
        text, status = text[: ends[-1]], CaptionStatus.TRIMMED
    elif is_open:
        flags.add("open_end")
    if len(text.split()) < _MIN_WORDS:
        return Cleaned("", CaptionStatus.TOO_SHORT, tuple(sorted(flags)))
    return Cleaned(text, status, tuple(sorted(flags)))


def measure(text: str) -> Measures:
    """The figures of `text`; white space and case make no difference."""
    words = text.lower().split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    raw = " ".join(text.split()).encode()
    return Measures(
        n_words=len(words),
        repeated_4grams=1 - len(set(grams)) / len(grams) if grams else None,
        compression=len(raw) / len(zlib.compress(raw)) if raw else None,
    )


def repeats(text: str) -> bool:
    """Whether `text` goes in circles."""
    measures = measure(text)
    if (measures.repeated_4grams or 0.0) > _MAX_REPEATED_4GRAMS:
        return True
    sentences = [s.strip().lower() for s in _SENTENCE_END.split(text) if len(s.split()) >= 4]
    if len(set(sentences)) < len(sentences):
        return True
    return measures.n_words > _COMPRESSION_MIN_WORDS and (measures.compression or 0.0) > _MAX_COMPRESSION
