"""How often each flag fires on real captions, and how often rightly, as far as somebody read them.

The labels are in benchmarks/caption_labels.json: by hash of the caption for statuses of which every occurrence was
read, and by hash and question for the questions below, of which a seeded sample was read. No caption is in that file.
"""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import xxhash

from curation.captions.quality import RULES, Cleaned
from schemas.status import USABLE_STATUSES

ALT_TEXT: Final = "LAION alt text"
MACHINE: Final = ("llava-1.5", "instructblip", "minigpt4", "shikra", "IIW-P5B")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "LLaVA-1.5": ("llava-1.5",),
    "InstructBLIP": ("instructblip",),
    "MiniGPT-4": ("minigpt4",),
    "Shikra": ("shikra",),
    "PaLI-5B": ("IIW-P5B",),
    "FaithScore, HaELM, LLaVA-Bench": ("faithscore", "haelm", "llava-bench"),
    "people, dense: IIW, DOCCI": ("IIW", "DOCCI"),
    "people: COCO, fuller COCO, Flickr8k, Flickr30k": ("COCO", "COCO, fuller", "Flickr8k", "Flickr30k"),
    "CC3M": ("CC3M",),
    "CapsFusion": ("CapsFusion",),
    ALT_TEXT: (ALT_TEXT,),
}
QUESTIONS: Final[Mapping[str, str]] = {
    "open_end": "open_end",
    "open_end, cut": "open_end",
    "low_variety": "low_variety",
    "stock_opening": "stock_opening",
    "trimmed": "trimmed",
    "truncated": "truncated",
}
"""What was asked of captions on which the rule beside it fires. What counts as right: docs/caption-rules.md."""

LABELS: Final = ("right", "borderline", "wrong")
REPETITION: Final = tuple(rule.name for rule in RULES if rule.status == "repetition")
_FLAGS: Final = tuple(rule.name for rule in RULES if rule.status is None)
_READ: Final = 40
_FILE: Final = Path(__file__).with_name("caption_labels.json")

Judged = Mapping[str, Sequence[tuple[str, Cleaned]]]
"""Of each set of captions: each, and its verdict."""


def load_labels() -> dict[str, str]:
    """The labels by hash, or by hash, a blank and the question."""
    labels: dict[str, str] = json.loads(_FILE.read_text())
    return labels


def key_of(text: str) -> str:
    """The hash of a caption in the file of labels."""
    return xxhash.xxh64_hexdigest(text.encode())[:12]


def fires(rule: str, verdict: Cleaned) -> bool:
    """Whether `rule` fired, as the status or beside it."""
    return rule == verdict.status.value or rule in verdict.flags


def sample(judged: Judged, rule: str) -> tuple[int, dict[str, Cleaned]]:
    """On how many distinct machine captions `rule` fires, and those of them that were drawn to be read."""
    found = {text: verdict for name in MACHINE for text, verdict in judged[name] if fires(rule, verdict)}
    texts = sorted(found, key=key_of)
    drawn = random.Random(f"0:{rule}").sample(texts, min(_READ, len(texts)))
    return len(texts), {text: found[text] for text in drawn}


def print_flags(judged: Judged) -> None:
    """A table of Markdown: on how many captions of each group each flag fires."""
    print(f"\nflags on real captions\n| captions | {' | '.join(_FLAGS)} |\n| --- |{' --- |' * len(_FLAGS)}")
    for group, names in GROUPS.items():
        verdicts = [verdict for name in names for _, verdict in judged[name]]
        counts = (sum(flag in verdict.flags for verdict in verdicts) for flag in _FLAGS)
        cells = (f"{n:,} ({n / len(verdicts):.1%})" if n else "" for n in counts)
        print(f"| {group} ({len(verdicts):,}) | {' | '.join(cells)} |")


def print_precision(judged: Judged, labels: Mapping[str, str]) -> None:
    """What the reader said of the sample of each question, and of the usable captions among them."""
    heads = "".join(f"{label:>12}" for label in (*LABELS, "not read"))
    print(f"\nas read, machine captions{'fire':>10}{'read':>6}{heads}   (usable ones only)")
    for question, rule in QUESTIONS.items():
        fired, drawn = sample(judged, rule)
        counts: Counter[str] = Counter()
        usable: Counter[str] = Counter()
        for text, verdict in drawn.items():
            label = labels.get(f"{key_of(text)} {question}", "not read")
            counts[label] += 1
            usable[label] += verdict.status in USABLE_STATUSES
        cells = "".join(f"{counts[x]:>6}{f'({usable[x]})':>6}" for x in (*LABELS, "not read"))
        print(f"{question:25}{fired:>10,}{len(drawn):>6}{cells}")


def print_repetition(judged: Judged, labels: Mapping[str, str]) -> None:
    """What each rule of repetition finds in real captions (alt text left out), and what it alone finds."""
    print(f"\n{'repetition, by rule':25}{'fires':>6}{'alone':>6}" + "".join(f"{label:>12}" for label in LABELS))
    texts = {text: v for name, some in judged.items() if name != ALT_TEXT for text, v in some}
    for rule in REPETITION:
        found = {text: v for text, v in texts.items() if rule in v.flags and v.status == "repetition"}
        alone = sum(not {*REPETITION} & {*v.flags} - {rule} for v in found.values())
        counts = Counter(labels.get(key_of(text), "not read") for text in found)
        print(f"{rule:25}{len(found):>6}{alone:>6}" + "".join(f"{counts[label]:>12}" for label in LABELS))


def print_sample(judged: Judged, rule: str) -> None:
    """The captions that were drawn for `rule`, to be read."""
    for text, verdict in sample(judged, rule)[1].items():
        print(f"\n{key_of(text)} {verdict.status} {', '.join(verdict.flags)}\n  {' '.join(text.split())}")
        print(f"  kept: {verdict.text}")
