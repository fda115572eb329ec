"""How good are the caption rules? `python -m benchmarks.caption_rules --data DIR [--foreign DIR] [--split all]`

Recall on planted defects (benchmarks.caption_defects), in two splits of ways to plant them. Precision on real captions:
each that is called a repetition, refusal, leak or not English was read (benchmarks/caption_labels.json, by hash of the
text), web alt text excepted. `--foreign` is a
folder of LANGUAGE.txt with a sentence a line, such as those of the parallel treebanks (PUD) of Universal Dependencies.
Runs in under a minute.
"""

import argparse
import gzip
import json
import platform
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.caption_defects import PROMPT, TEXTS_ELSEWHERE, WAYS, Planted, Way, planted
from curation.captions.quality import RULES, RULES_VERSION, Cleaned, clean
from curation.captions.quality_text import text_hash

PLANTED = 200
LABELS = Path(__file__).with_name("caption_labels.json")
ACCEPTED = {"truncated": {"truncated", "trimmed"}}
READ = ("repetition", "refusal", "leak", "non_english")
"""Statuses whose every occurrence was read."""


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--foreign", type=Path)
    command.add_argument("--split", choices=("tuning", "held_out", "all"), default="all")
    command.add_argument("--show", type=int, default=0, help="print so many missed captions of each way")
    options = command.parse_args()
    print(f"caption rules v{RULES_VERSION}, Python {platform.python_version()}, {platform.machine()}")
    real = _real(options.data)
    _planted(real, options.split, options.show)
    _duplicates(real["llava-1.5"])
    _real_captions(real)
    _languages(options.data, options.foreign)
    _speed(real["llava-1.5"])


def _judge(case: Planted) -> Cleaned:
    return clean(case.text, case.finish_reason, prompt=PROMPT)


def _planted(real: Mapping[str, list[str]], split: str, show: int) -> None:
    """Recall, by way. `as such`: the right status, or the right flag beside another one."""
    good = {name: [t for t in texts if _judge(Planted(t)).status == "ok"] for name, texts in real.items()}
    bases = {"tuning": good["llava-1.5"], "held_out": [*good["shikra"], *good["IIW-P5B"]]}
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    print(f"\n{'planted defect':15}{'way':38}{'split':10}{'n':>5}{'as such':>9}{'otherwise':>11}{'missed':>8}")
    for way in WAYS:
        if split not in (way.split, "all"):
            continue
        captions = random.Random(0).sample(bases[way.split], PLANTED)
        outcomes = [(case, _outcome(way, _judge(case))) for case in planted(way, captions)]
        counts = Counter(outcome for _, outcome in outcomes)
        sums[way.defect, way.split] += counts
        print(_line(way.defect, way.name, way.split, counts))
        for case in [case for case, outcome in outcomes if outcome == "missed"][:show]:
            print("      ", repr(case.text[:60]), "..", repr(case.text[-90:]))
    for (defect, of), counts in sorted(sums.items()):
        print(_line(defect, "all", of, counts))


def _line(defect: str, way: str, split: str, counts: Counter[str]) -> str:
    total = counts.total()
    shares = "".join(f"{counts[o] / total:>{w}.1%}" for o, w in (("as such", 9), ("otherwise", 11), ("missed", 8)))
    return f"{defect:15}{way:38}{split:10}{total:>5}{shares}"


def _outcome(way: Way, verdict: Cleaned) -> str:
    names = ACCEPTED.get(way.defect, {way.defect})
    if verdict.status.value in names or names & {*verdict.flags}:
        return "as such"
    if way.defect == "repetition" and any(rule.status == "repetition" and rule.name in verdict.flags for rule in RULES):
        return "as such"
    return "missed" if verdict.status == "ok" or way.defect == "stock_opening" else "otherwise"


def _duplicates(texts: Sequence[str]) -> None:
    """Whether three rows that say the same have one hash."""
    variants = {
        "the same": lambda t: t,
        "capitals": str.upper,
        "white space and punctuation": lambda t: "  " + t.replace(". ", " !\n").rstrip("."),
        "curly apostrophes": lambda t: t.replace("'", "’"),
        "one word more": lambda t: t + " Really.",
    }
    print("\nduplicate_text: variants of a caption that have its hash")
    for name, make in variants.items():
        same = sum(text_hash(make(t)) == text_hash(t) for t in texts)
        print(f"  {name:30}{same / len(texts):>8.1%}")
    print(f"  distinct hashes of {len(set(texts)):,} distinct captions: {len({text_hash(t) for t in set(texts)}):,}")


def _real_captions(real: Mapping[str, list[str]]) -> None:
    """What the rules say of real captions, and how much of it is right."""
    labels: dict[str, str] = json.loads(LABELS.read_text()) if LABELS.exists() else {}
    verdicts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    print("\nreal captions, engine silent on how they ended: statuses and flags")
    for name, texts in real.items():
        cleaned = [clean(text, "stop") for text in texts]
        counts = Counter(c.status.value for c in cleaned)
        flags = Counter(flag for c in cleaned for flag in c.flags)
        shown = [f"{k} {n:,} ({n / len(texts):.2%})" for k, n in counts.most_common()]
        print(f"  {name} ({len(texts):,}): {', '.join(shown)}")
        print(f"      flags: {', '.join(f'{k} {n:,}' for k, n in flags.most_common())}")
        for text, verdict in zip(texts, cleaned, strict=True):
            if verdict.status in READ and name != ALT_TEXT:
                key = xxhash.xxh64_hexdigest(text.encode())[:12]
                label = labels.get(key, "not read")
                verdicts[verdict.status.value][label] += 1
                if label == "not read" or (label == "wrong" and name not in WEB):
                    print(f"      {label}: {key} {verdict.status} {verdict.flags} {_shortened(text)}")
    print(f"\nprecision of statuses, over all of these but {ALT_TEXT}, as read")
    for status, counts in verdicts.items():
        print(f"  {status:15} {', '.join(f'{k} {n}' for k, n in sorted(counts.items()))}")


def _languages(data: Path, foreign: Path | None) -> None:
    """How many texts of each language are called non_english: single sentences, and three in a row."""
    print(f"\nnon_english by language{'sentences':>14}{'flagged':>10}{'three in a row':>16}")
    texts = {
        path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted((foreign or Path()).glob("*.txt"))
    }
    if foreign is None:
        texts = {language: list(sentences) for language, sentences in TEXTS_ELSEWHERE.items()}
    for treebank in sorted((data / "ud-english").glob("*-dev.dev.conllu.gz")):
        with gzip.open(treebank, "rt", encoding="utf-8") as file:
            name = f"English, UD {treebank.name.partition('-')[0]}"
            texts[name] = [line[9:].strip() for line in file if line.startswith("# text = ")]
    for name, sentences in texts.items():
        long = [s for s in sentences if len(s.split()) >= 5 or not s.isascii()]
        three = [" ".join(long[i : i + 3]) for i in range(0, len(long) - 2, 3)]
        shares = [_share_non_english(some) for some in (long, three)]
        print(f"  {name:21}{len(long):>14,}{shares[0]:>10.2%}{shares[1]:>16.2%}")


def _share_non_english(texts: Sequence[str]) -> float:
    verdicts = [clean(text, "stop") for text in texts]
    return sum(v.status == "non_english" or "non_english" in v.flags for v in verdicts) / max(1, len(texts))


def _speed(texts: Sequence[str]) -> None:
    start = time.perf_counter()
    for text in texts:
        clean(text, "stop", prompt=PROMPT)
    spent = time.perf_counter() - start
    print(f"\nspeed: {len(texts) / spent:,.0f} captions/s, one thread, {1e6 * spent / len(texts):,.0f} us each")


ALT_TEXT = "LAION alt text"
WEB = ("CC3M", "CapsFusion")


def _real(data: Path) -> dict[str, list[str]]:
    """Captions by who wrote them."""
    out: defaultdict[str, list[str]] = defaultdict(list)
    for row in _rows(data / "dense-captions/opera-coco-machine.dev.jsonl.gz"):
        out[row["model"]].append(row["caption"])
    for path in sorted((data / "dense-captions").glob("iiw-*.gz")):
        for row in _rows(path):
            for name in ("IIW-P5B", "IIW", "DOCCI"):
                if row.get(name):
                    out[name].append(row[name])
    dense = data / "dense-captions"
    out["faithscore"] = [row["answer"] for row in _rows(dense / "faithscore-annotated.dev.jsonl.gz")]
    out["haelm"] = [row["caption"] for row in _rows(dense / "haelm-eval.dev.jsonl.gz")]
    out["llava-bench"] = [row["gpt4_answer"] for row in _rows(dense / "llava-bench-coco-qa90.dev.jsonl.gz")]
    people = data / "captions-human"
    out["COCO"] = [c for row in _rows(people / "coco-val2017.dev.jsonl.gz") for c in row["captions"]]
    out["COCO, fuller"] = list(_texts(_rows(people / "coco-fine-grained.dev.jsonl.gz")))
    out["Flickr8k"] = [c for row in _rows(people / "flickr8k.dev.jsonl.gz") for c in row["captions"]]
    out["Flickr30k"] = [c for row in _rows(people / "multi30k-task2-train-en.dev.jsonl.gz") for c in row["captions"]]
    out["CC3M"] = [row["caption"] for row in _rows(data / "alt-text/cc3m-validation.dev.jsonl.gz")]
    for row in _rows(data / "alt-text/laion2b-capsfusion.dev.jsonl.gz"):
        out[ALT_TEXT].append(row["alt_text"])
        out["CapsFusion"].append(row["fused_caption"])
    return dict(out)


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """All captions of rows whose columns are strings or lists of them."""
    for row in rows:
        value = row.get("caption") or row.get("captions")
        yield from [value] if isinstance(value, str) else value or []


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) < 170 else f"{line[:70]} .. {line[-95:]}")


if __name__ == "__main__":
    main()
