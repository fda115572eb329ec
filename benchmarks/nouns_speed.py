"""Counting nouns beside spaCy, in turns on the same captions.

    python -m benchmarks.nouns_speed [speed] [workers] [memory] [new-words]

The peer is a whole spaCy pipeline of the shape of en_core_web_sm (tok2vec, tagger, parser, attribute_ruler, lemmatizer,
and ner with a tok2vec of its own, 96 wide and 4 deep), run as its documentation shows: `for doc in nlp.pipe(texts)`.
The package itself is not on the package index, so it is the shape and not the weights: tok2vec and tagger are those
that come with latentmill, which makes the counts comparable; parser and ner are trained for a few steps only, which
costs the same time a token. `--peer en_core_web_sm` takes an installed pipeline instead. The third in the round is
latentmill's own tagger run by spaCy alone, with nothing left out and nothing tuned.

`workers` counts the same files with one Ray worker and with two, in turns; `memory` counts a million short captions and
prints what is resident; `new-words` does so with the first four words of each and a new made-up one, which no real
captions have: what is remembered depends on words, and not on how many captions they come in.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import spacy

from benchmarks.spacy_pipeline import full_pipeline
from curation.nouns.counting import CountingRules, NounCounter, count_texts
from curation.nouns.tagger import SHIPPED_TAGGER, Tagger, load_tagger

_CORPORA: Final = {
    "machine, dense": (("dense-captions/opera-coco-machine.dev.jsonl.gz", "caption"),),
    "human": (
        ("captions-human/coco-val2017.dev.jsonl.gz", "captions"),
        ("captions-human/flickr8k.dev.jsonl.gz", "captions"),
    ),
    "alt text": (("alt-text/laion2b-capsfusion.dev.jsonl.gz", "alt_text"),),
}
_PARTS: Final = ("speed", "workers", "memory", "new-words")
_UNIT: Final = 10_000

Counts = Counter[tuple[str, bool]]


def main() -> None:
    """Measure what was asked for and print it."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("what", nargs="*", choices=[[], *_PARTS], help="default: the first three")
    default = os.environ.get("LATENTMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    command.add_argument("--data", type=Path, default=default, help="the folder with captions-human and dense-captions")
    command.add_argument("--peer", metavar="NAME", help="an installed spaCy pipeline")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--quick", action="store_true", help="a tenth of it")
    options = command.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"Python {platform.python_version()}, spaCy {spacy.__version__}, numpy {np.__version__}, {os.cpu_count()} cores"
    )
    print(f"load average {load}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    what = options.what or _PARTS[:3]
    if "speed" in what:
        measure_speed(options.data, options.peer, 2 if options.quick else options.rounds, 50 if options.quick else 500)
    if "workers" in what:
        measure_workers(options.data, 1 if options.quick else 2, 4 if options.quick else 20)
    for part in ("memory", "new-words"):
        if part in what:
            measure_memory(options.data, 100_000 if options.quick else 1_000_000, new_words=part == "new-words")


def measure_speed(data: Path, peer: str | None, rounds: int, dense: int) -> None:
    """Captions a CPU second: the full pipeline, our tagger in plain spaCy, and ours, in turns."""
    full = spacy.load(peer) if peer else full_pipeline(data)
    plain, tagger = spacy.load(SHIPPED_TAGGER), load_tagger(None)
    runs: dict[str, Callable[[Sequence[str]], Counts]] = {
        "full pipeline": lambda texts: count_docs(full.pipe(texts)),
        "own tagger, plain spaCy": lambda texts: count_docs(plain.pipe(texts)),
        "latentmill": lambda texts: count_ours(texts, tagger),
    }
    print(
        f"\ncaptions per CPU second on one core, median of {rounds} rounds in turns; peer: {' '.join(full.pipe_names)}"
    )
    for corpus, files in _CORPORA.items():
        texts = list(islice(captions(data, files), dense if "dense" in corpus else 6 * dense))
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        counts: dict[str, Counts] = {}
        for run in runs.values():
            run(texts[:100])
        for _ in range(rounds):
            for name, run in runs.items():
                started = time.process_time()
                counts[name] = run(texts)
                seconds[name].append(time.process_time() - started)
        ours, words = seconds["latentmill"], sum(len(text.split()) for text in texts) / len(texts)
        print(f"{corpus}: {len(texts):,} captions of {words:.1f} words, {counts['latentmill'].total():,} nouns")
        print(f"  {'latentmill':24} {len(texts) / statistics.median(ours):8,.0f}/s")
        for name in list(runs)[:-1]:
            rate = len(texts) / statistics.median(seconds[name])
            ratios = [other / own for other, own in zip(seconds[name], ours, strict=True)]
            told = (
                f"latentmill is {statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f})"
            )
            differ = (counts[name] - counts["latentmill"]).total() + (counts["latentmill"] - counts[name]).total()
            print(f"  {name:24} {rate:8,.0f}/s   {told}; {differ:,} nouns counted otherwise")


def count_docs(docs: Iterable[Any]) -> Counts:
    """What a script would count from spaCy's documents: nouns with a letter, in lower case, and whether proper."""
    counts: Counts = Counter()
    for doc in docs:
        for token in doc:
            if token.pos_ in ("NOUN", "PROPN") and any(map(str.isalpha, token.text)):
                counts[token.lower_, token.pos_ == "PROPN"] += 1
    return counts


def count_ours(texts: Sequence[str], tagger: Tagger) -> Counts:
    """What the noun stage counts, which is more: captions of each noun, tokens, and the nouns of each caption."""
    counter = NounCounter(CountingRules(tagger.info, tagger.normalisation))
    count_texts(counter, "caption", texts, tagger)
    rows = counter.counts().nouns.to_pylist()
    counts = {(row["noun"], False): row["tf_noun"] for row in rows}
    return Counter(counts | {(row["noun"], True): row["tf_propn"] for row in rows})


def measure_workers(data: Path, rounds: int, units: int) -> None:
    """Rows a second of `pipelines.nouns` with one Ray worker and with two, between their first and their last unit."""
    texts = [" ".join(text.split()) for files in _CORPORA.values() for text in captions(data, files)]
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(units):
            rows = islice(cycle(texts), number * 101, number * 101 + 3000)
            (Path(folder) / f"part-{number:03d}.txt").write_text("".join(f"{text}\n" for text in rows))
        for turn in range(rounds):
            for workers in rates:
                out = Path(folder) / f"out-{workers}-{turn}"
                arguments = ["--captions", f"{folder}/part-*.txt", "--out", str(out), "--workers", str(workers)]
                here = [sys.executable, "-m", "pipelines.nouns", *arguments, "--executor", "ray"]
                subprocess.run(here, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                done = sorted(path.stat().st_mtime for path in (out / "ledger").iterdir())
                # Workers start at different times, so the clock runs from the moment when each has done a unit.
                rates[workers].append(3000 * (units - workers) / (done[-1] - done[workers - 1]))
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    print(f"\n{units} files of 3,000 captions by Ray: one worker {one:,.0f}/s, two {two:,.0f}/s, {ratio:.2f} times")


def measure_memory(data: Path, number: int, *, new_words: bool) -> None:
    """What is resident while `number` captions are counted, unit by unit; with `new_words`, a made-up one in each."""
    short = [files for corpus, files in _CORPORA.items() if "dense" not in corpus]
    texts = [text for files in short for text in islice(captions(data, files), 3000)]
    tagger, process = load_tagger(None), psutil.Process()
    started = time.perf_counter()
    print(f"\n{number:,} captions{', and as many words that never came before' if new_words else ''}")
    for first in range(0, number, _UNIT):
        start = first % len(texts)
        unit = list(islice(cycle(texts), start, start + _UNIT))
        if new_words:
            unit = [f"{' '.join(text.split()[:4])} zq{place}x" for place, text in enumerate(unit, first)]
        counter = NounCounter(CountingRules(tagger.info, tagger.normalisation))
        count_texts(counter, "caption", unit, tagger)
        if (first + _UNIT) % (number // 10) == 0:
            rate = (first + _UNIT) / (time.perf_counter() - started)
            print(f"  after {first + _UNIT:9,}: {process.memory_info().rss / 2**20:5.0f} MB resident, {rate:,.0f}/s")


def captions(data: Path, files: Sequence[tuple[str, str]]) -> Iterable[str]:
    """The captions of the files, in order."""
    for name, column in files:
        with gzip.open(data / name, "rt", encoding="utf-8") as lines:
            for line in lines:
                value = json.loads(line)[column]
                yield from value if isinstance(value, list) else [value]


if __name__ == "__main__":
    main()
