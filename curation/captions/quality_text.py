"""Text as the caption rules see it: white space, sentences, words, and the hash by which equal texts are found."""

import itertools
import re
import zlib
from typing import Final

import xxhash

_END: Final = re.compile(r"(?<!\.)[.!?][\"'”’)\]*]*(?=\s|$)")
_NEVER_AN_END: Final = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Mt|Prof|vs|e\.g|i\.e|approx)$")
_INITIAL: Final = re.compile(r"\b[A-Z]$")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WORD: Final = re.compile(r"\w+(?:'\w+)?")
_WINDOW_WORDS: Final = 100


def squeeze(text: str) -> str:
    """`text` with each run of white space and control characters as one space, and none at its ends."""
    return " ".join((text if text.isprintable() else _CONTROL.sub(" ", text)).split())


def sentence_ends(text: str) -> list[int]:
    """The positions just after each whole sentence of squeezed `text`.

    A sentence ends with `.`, `!` or `?`, and quotes or brackets that close after it. Dots in a row end nothing, and
    neither does a full stop after `Mr`, `St` and the like, nor one after a single capital letter inside the text.
    """
    ends = []
    for match in _END.finditer(text):
        before, dot = text[: match.start()][-8:], text[match.start()] == "."
        if dot and (_NEVER_AN_END.search(before) or (match.end() < len(text) and _INITIAL.search(before))):
            continue
        ends.append(match.end())
    return ends


def sentences(text: str) -> list[str]:
    """The sentences of squeezed `text`, the open last one included."""
    ends = [0, *sentence_ends(text), len(text)]
    return [s for s in (text[a:b].strip() for a, b in itertools.pairwise(ends)) if s]


def words(text: str) -> list[str]:
    """The words of `text` for comparing: lower-case, without punctuation."""
    return _WORD.findall(text.lower().replace("’", "'"))


def text_hash(text: str) -> int | None:
    """xxh64 of the words of `text`; equal for texts that differ in case, white space and punctuation alone.

    None if there is no word in it.
    """
    found = words(text)
    return xxhash.xxh64_intdigest(" ".join(found).encode(errors="surrogatepass")) if found else None


def repeated_share(items: list[str], n: int) -> float | None:
    """The share of the n-grams of `items` that came before; None if there is none."""
    grams = [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def compression(text: str) -> float | None:
    """UTF-8 bytes over zlib-compressed bytes; None if empty."""
    raw = text.encode(errors="surrogatepass")
    return len(raw) / len(zlib.compress(raw)) if raw else None


def densest_compression(text: str) -> float:
    """The largest compression of any 100 words in a row (in steps of 25) of squeezed `text`; of all of it if shorter.

    By windows, because compression grows with length alone: people's own captions of 500 words reach 2.6.
    """
    parts = text.split(" ")
    starts = range(0, max(1, len(parts) - _WINDOW_WORDS + 25), 25)
    return max(compression(" ".join(parts[i : i + _WINDOW_WORDS])) or 0.0 for i in starts)


def variety(items: list[str], window: int = 50) -> float:
    """The share of distinct words in `window` of them, averaged over all places (the moving-average type-token ratio).

    Of all words if there are fewer; 1 if there is none.
    """
    if len(items) <= window:
        return len(set(items)) / len(items) if items else 1.0
    counts: dict[str, int] = {}
    total = 0
    for i, word in enumerate(items):
        counts[word] = counts.get(word, 0) + 1
        if i >= window:
            old = items[i - window]
            counts[old] -= 1
            if not counts[old]:
                del counts[old]
        if i >= window - 1:
            total += len(counts)
    return total / (window * (len(items) - window + 1))
