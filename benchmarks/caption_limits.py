"""Rules that compare a number with a threshold: cases just within it and just past it.

Such a rule is no judgement. It is right if it fires past its threshold and never within, whatever the caption says.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from curation.captions.quality import DEFAULTS, clean
from curation.captions.quality_text import words

_TURNED: Final = "thing"


@dataclass(frozen=True, slots=True)
class Case:
    """A caption whose figure, `says`, lies within (`fires` is False) or past the threshold of `rule`.

    `n_t5_tokens`: what the counter of T5 tokens is made to say; None if there is none.
    """

    rule: str
    says: str
    fires: bool
    text: str
    mean_logprob: float | None = None
    n_t5_tokens: int | None = None


def cases(captions: Sequence[str], number: int) -> list[Case]:
    """`number` captions of each figure, cut and joined from the words of `captions`; the same for the same ones."""
    pool = [word for caption in captions for word in words(caption) if word.isalpha()]
    out = []
    for i in range(number):
        noise = random.Random(f"limits:{i}")
        start = noise.randrange(len(pool) - 400)
        out += _lengths(pool[start : start + 400])
        out += _others(captions[i % len(captions)], sorted({*pool[start : start + 400]} - {_TURNED}))
    return out


def outcome(case: Case) -> bool:
    """Whether the rule fires, as a status or as a flag."""
    count = case.n_t5_tokens
    counter = None if count is None else lambda text: count
    verdict = clean(case.text, "stop", mean_logprob=case.mean_logprob, t5_tokens=counter)
    return case.rule in (verdict.status.value, *verdict.flags)


def _lengths(found: Sequence[str]) -> list[Case]:
    least, most = DEFAULTS.min_words, DEFAULTS.max_words
    sizes = [("too_short", least - 1, True), ("too_short", least, False)]
    sizes += [("too_long", most - 1, False), ("too_long", most, False), ("too_long", most + 1, True)]
    return [Case(rule, f"{n} words", fires, _text(found[:n])) for rule, n, fires in sizes]


def _others(caption: str, different: Sequence[str]) -> list[Case]:
    limit = DEFAULTS.min_logprob
    sure = [(math.nextafter(limit, 0), False), (limit, False), (math.nextafter(limit, -2), True), (None, False)]
    out = [Case("uncertain", "no figure" if p is None else f"{p!r}", fires, caption, p) for p, fires in sure]
    for most in (120, 300):
        for n in (most - 1, most, most + 1):
            out.append(Case(f"over_{most}", f"{n} T5 tokens", n > most, caption, None, n))
    for distinct in (28, 27):
        said = [*different[: distinct - 1], *[_TURNED] * (51 - distinct)]
        fires = distinct / 50 < DEFAULTS.min_variety
        out.append(Case("low_variety", f"{distinct} distinct words of 50", fires, _text(said)))
    return out


def _text(found: Sequence[str]) -> str:
    return " ".join(found).capitalize() + "."
