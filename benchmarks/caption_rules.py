"""How good are the caption rules? `python -m benchmarks.caption_rules --data DIR [--foreign DIR] [--split all]`

Recall on planted defects (benchmarks.caption_defects, benchmarks.caption_flag_defects), in two splits of ways to plant
them; rules that compare a number, on both sides of it (benchmarks.caption_limits). Precision on real captions: each
that is called a repetition, refusal, leak or not English was read, web alt text excepted, and a sample of what other
rules find in machine captions (benchmarks.caption_reading; `--read RULE` prints it). `--foreign` is a folder of
LANGUAGE.txt with a sentence a line, such as those of the parallel treebanks (PUD) of Universal Dependencies.
`--t5-tokenizer` counts T5 tokens; without it, a caption counts as one token a word and one for its end, so that
over_120 and over_300 are the least that they can be. Runs in under two minutes.
"""

import argparse
import gzip
import json
import platform
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import caption_limits as limits
from benchmarks import caption_reading as reading
from benchmarks.caption_defects import PROMPT, TEXTS_ELSEWHERE, WAYS, Planted, Way, planted, sentences
from benchmarks.caption_flag_defects import MORE_WAYS
from benchmarks.caption_reading import ALT_TEXT, Judged, key_of
from curation.captions.quality import RULES, RULES_VERSION, Cleaned, clean
from curation.captions.quality_patterns import without_opening
from curation.captions.quality_text import squeeze, text_hash
from curation.captions.t5_counter import t5_counter
from curation.checkpoints import resolve_checkpoint

PLANTED = 200
ACCEPTED = {"truncated": {"truncated", "trimmed"}}
READ = ("repetition", "refusal", "leak", "non_english")
"""Statuses whose every occurrence was read."""


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--foreign", type=Path)
    command.add_argument("--t5-tokenizer")
    command.add_argument("--split", choices=("tuning", "held_out", "all"), default="all")
    command.add_argument("--show", type=int, default=0, help="print so many missed captions of each way")
    command.add_argument("--read", choices=sorted({*reading.QUESTIONS.values()}), help="print captions to be read")
    options = command.parse_args()
    print(f"caption rules v{RULES_VERSION}, Python {platform.python_version()}, {platform.machine()}")
    print(f"T5 tokens: {options.t5_tokenizer or 'the least there can be, one a word and one for the end'}")
    real = _real(options.data)
    tokens = _t5_tokens(options.t5_tokenizer)
    judged = {name: [(text, clean(text, "stop", t5_tokens=tokens)) for text in texts] for name, texts in real.items()}
    if options.read:
        reading.print_sample(judged, options.read)
        return
    _planted(real, options.split, options.show)
    _limits(real["IIW-P5B"])
    _duplicates(real["llava-1.5"])
    labels = reading.load_labels()
    _real_captions(judged, labels)
    reading.print_repetition(judged, labels)
    reading.print_flags(judged)
    reading.print_precision(judged, labels)
    _languages(options.data, options.foreign)
    _speed(real["llava-1.5"])


def _t5_tokens(name: str | None) -> Callable[[str], int]:
    found = resolve_checkpoint(name, None, needs=("tokenizer.json|spiece.model",)) if name else None
    return t5_counter(found) or _fewest_tokens


def _fewest_tokens(text: str) -> int:
    """T5 begins a token with each word, and adds one for the end."""
    return len(text.split()) + 1


def _judge(case: Planted) -> Cleaned:
    return clean(case.text, case.finish_reason, prompt=PROMPT)


def _planted(real: Mapping[str, list[str]], split: str, show: int) -> None:
    """Recall, by way. `as such`: the right status, or the right flag beside another one."""
    good = {name: [t for t in texts if _judge(Planted(t)).status == "ok"] for name, texts in real.items()}
    bases = {"tuning": good["llava-1.5"], "held_out": [*good["shikra"], *good["IIW-P5B"]]}
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    cuts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_rule: defaultdict[str, Counter[str]] = defaultdict(Counter)
    print(f"\n{'planted defect':15}{'way':38}{'split':10}{'n':>5}{'as such':>9}{'otherwise':>11}{'missed':>8}")
    for way in (*WAYS, *MORE_WAYS):
        if split not in (way.split, "all"):
            continue
        captions = random.Random(0).sample(bases[way.split], PLANTED)
        outcomes = [(case, _outcome(way, _judge(case))) for case in planted(way, captions)]
        counts = Counter(outcome for _, outcome in outcomes)
        sums[way.defect, way.split] += counts
        print(_line(way.defect, way.name, way.split, counts))
        if way.defect == "truncated":
            for caption, (case, _) in zip(captions, outcomes, strict=True):
                cuts[way.split][_cut(caption, case)] += 1
        if way.defect == "repetition":
            for case, _ in outcomes:
                by_rule[way.split].update(_repetition_rules(_judge(case)))
        for case in [case for case, outcome in outcomes if outcome == "missed"][:show]:
            print("      ", repr(case.text[:60]), "..", repr(case.text[-90:]))
    for (defect, of), counts in sorted(sums.items()):
        print(_line(defect, "all", of, counts))
    for of, counts in cuts.items():
        print(f"planted cuts, {of}: {', '.join(f'{k} {n}' for k, n in sorted(counts.items()))}")
    for of, counts in by_rule.items():
        print(f"planted repetitions, {of}, found by: {', '.join(f'{k} {n}' for k, n in sorted(counts.items()))}")


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


def _cut(caption: str, case: Planted) -> str:
    """What should become of a caption that was cut, and what did: by sentences that are told apart in another way."""
    whole, kept = squeeze(case.text), ""
    for sentence in sentences(caption):
        longer = f"{kept} {sentence}".lstrip()
        if not whole.startswith(longer):
            break
        kept = longer
    verdict = _judge(case)
    if len(kept) < len(whole) / 2:
        return f"less than half is whole: {verdict.status.value}"
    exact = "" if verdict.text == without_opening(kept) else ", not exactly the whole sentences"
    return f"half or more is whole: {verdict.status.value}{exact}"


def _repetition_rules(verdict: Cleaned) -> list[str]:
    found = [name for name in reading.REPETITION if name in verdict.flags]
    return [*found, f"{found[0]} alone"] if len(found) == 1 else found


def _limits(captions: Sequence[str]) -> None:
    """Whether rules that compare a number fire exactly past it."""
    fired: defaultdict[tuple[str, str, bool], Counter[bool]] = defaultdict(Counter)
    for case in limits.cases(captions, PLANTED):
        fired[case.rule, case.says, case.fires][limits.outcome(case)] += 1
    print(f"\n{'thresholds':15}{'figure':30}{'n':>5}{'should':>8}{'fires':>8}")
    for (rule, says, should), counts in fired.items():
        print(f"{rule:15}{says:30}{counts.total():>5}{should!s:>8}{counts[True] / counts.total():>8.1%}")


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


def _real_captions(judged: Judged, labels: Mapping[str, str]) -> None:
    """What the rules say of real captions, and how much of it is right."""
    verdicts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    print("\nreal captions, engine silent on how they ended: statuses and flags")
    for name, cleaned in judged.items():
        counts = Counter(c.status.value for _, c in cleaned)
        flags = Counter(flag for _, c in cleaned for flag in c.flags)
        shown = [f"{k} {n:,} ({n / len(cleaned):.2%})" for k, n in counts.most_common()]
        print(f"  {name} ({len(cleaned):,}): {', '.join(shown)}")
        print(f"      flags: {', '.join(f'{k} {n:,}' for k, n in flags.most_common())}")
        for text, verdict in cleaned:
            if verdict.status in READ and name != ALT_TEXT:
                label = labels.get(key_of(text), "not read")
                verdicts[verdict.status.value][label] += 1
                if label == "not read" or (label == "wrong" and name not in WEB):
                    print(f"      {label}: {key_of(text)} {verdict.status} {verdict.flags} {_shortened(text)}")
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
    for name, lines in texts.items():
        long = [s for s in lines if len(s.split()) >= 5 or not s.isascii()]
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
