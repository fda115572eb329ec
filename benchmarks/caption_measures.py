"""Would other measures of repetition find more than the rules? `python -m benchmarks.caption_measures --data DIR`

On real captions of machines and people: the share of characters in the most frequent 2- to 4-gram and in 5- to 10-grams
that came before (Gopher's filters, Rae et al. 2021), repeated 2- and 3-grams, and lexical diversity (MTLD, McCarthy and
Jarvis 2010, of captions of 50 words and more). For each: how many it calls repetitive, and how many of these no
repetition rule of ours calls so. `--read N` prints N of the latter with what came before in capitals, to be read.
"""

import argparse
import platform
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.caption_rules import _real
from curation.captions.quality import RULES, clean
from curation.captions.quality_text import repeated_share, words

SETS: Final = ("llava-1.5", "instructblip", "minigpt4", "shikra", "IIW-P5B", "IIW", "DOCCI", "COCO", "CC3M")
TOP: Final = {2: 0.20, 3: 0.18, 4: 0.16}
CAME_BEFORE: Final = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
_REPETITION: Final = frozenset(rule.name for rule in RULES if rule.status == "repetition")
_MTLD_RATIO: Final = 0.72  # the type-token ratio at which a stretch ends, as published
_MTLD_WORDS: Final = 50


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--read", type=int, default=0, metavar="N")
    options = command.parse_args()
    print(f"Python {platform.python_version()}; called repetitive (of these by no rule of ours)")
    print(f"{'captions':12}{'n':>7}{'our rules':>11}" + "".join(f"{name:>26}" for name in MEASURES))
    real, more = _real(options.data), []
    for name in SETS:
        counts: Counter[str] = Counter()
        for text in real[name]:
            said, ours = words(text), _ours(text)
            counts["ours"] += ours
            for measure, calls in MEASURES.items():
                called = calls(said)
                counts[measure] += called
                counts[f"{measure}, new"] += called and not ours
                if measure == "n-grams that came before" and called and not ours:
                    more.append((name, said))
        cells = (f"{counts[m]} ({counts[f'{m}, new']})" for m in MEASURES)
        print(f"{name:12}{len(real[name]):7,}{counts['ours']:11,}" + "".join(f"{cell:>26}" for cell in cells))
    for name, said in random.Random(1).sample(more, min(options.read, len(more))):
        print(f"\n[{name}]", " ".join(w.upper() if i in _again(said, 5) else w for i, w in enumerate(said)))


def _ours(text: str) -> bool:
    judged = clean(text, "stop")
    return judged.status == "repetition" or not _REPETITION.isdisjoint(judged.flags)


def _top(said: Sequence[str], n: int) -> float:
    """The share of characters in the n-gram that holds most of them, if it comes more than once."""
    counts = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
    most = max((count * sum(map(len, gram)) for gram, count in counts.items() if count > 1), default=0)
    return most / max(1, sum(map(len, said)))


def _again(said: Sequence[str], n: int) -> set[int]:
    """The places of words in n-grams that came before."""
    seen: set[tuple[str, ...]] = set()
    places: set[int] = set()
    for i in range(len(said) - n + 1):
        gram = tuple(said[i : i + n])
        if gram in seen:
            places.update(range(i, i + n))
        seen.add(gram)
    return places


def _share_again(said: Sequence[str], n: int) -> float:
    return sum(len(said[i]) for i in _again(said, n)) / max(1, sum(map(len, said)))


def _mtld(said: Sequence[str]) -> float:
    """Mean length of stretches of enough variety, forwards and backwards."""
    return (_stretch(said) + _stretch(said[::-1])) / 2


def _stretch(said: Sequence[str]) -> float:
    ended, length, distinct = 0.0, 0, set[str]()
    for word in said:
        length += 1
        distinct.add(word)
        if len(distinct) / length < _MTLD_RATIO:
            ended, length, distinct = ended + 1, 0, set()
    if length:
        ended += (1 - len(distinct) / length) / (1 - _MTLD_RATIO)
    return len(said) / ended if ended else float(len(said))


MEASURES: Final[dict[str, Callable[[list[str]], bool]]] = {
    "one n-gram": lambda said: any(_top(said, n) > most for n, most in TOP.items()),
    "n-grams that came before": lambda said: any(_share_again(said, n) > most for n, most in CAME_BEFORE.items()),
    "2-grams over 0.4": lambda said: (repeated_share(said, 2) or 0.0) > 0.4,
    "3-grams over 0.3": lambda said: (repeated_share(said, 3) or 0.0) > 0.3,
    "MTLD below 30": lambda said: len(said) >= _MTLD_WORDS and _mtld(said) < 30,
}
"""What each measure calls repetitive."""


if __name__ == "__main__":
    main()
