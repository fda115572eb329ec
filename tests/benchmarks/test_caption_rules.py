"""The planted defects, the cases at the thresholds and the labels behind the figures of docs/caption-rules.md."""

import re

import pytest

from benchmarks import caption_reading as reading
from benchmarks.caption_defects import WAYS, Planted, Way, planted
from benchmarks.caption_flag_defects import MORE_WAYS
from benchmarks.caption_limits import Case, cases, outcome
from curation.captions.quality import RULES, Cleaned, clean

_THINGS = ["lantern", "bridge", "orchard", "kettle", "saddle", "violin"]
_THINGS += ["harbour", "meadow", "pebble", "curtain", "chimney", "parcel"]
_DOINGS = ["gleams", "waits", "leans", "glitters", "rests", "drips", "sways", "rattles", "floats", "lingers"]
CAPTIONS = [
    f"A {_THINGS[i % 12]} {_DOINGS[i % 10]} beneath the pale {_THINGS[(5 * i + 3) % 12]} of an early morning. "
    f"Behind it some {_THINGS[(7 * i + 1) % 12]} {_DOINGS[(3 * i + 2) % 10]} quietly, while two children look on. "
    f"The light on every {_THINGS[(i + 6) % 12]} is soft and warm."
    for i in range(40)
]
ALL_WAYS = (*WAYS, *MORE_WAYS)
CASES = cases(CAPTIONS, 3)


def _judged(texts: list[str]) -> dict[str, list[tuple[str, Cleaned]]]:
    return {"llava-1.5": [(t, clean(t, "stop")) for t in texts]} | {name: [] for name in reading.MACHINE[1:]}


def test_no_two_ways_have_one_name() -> None:
    names = [(way.defect, way.name) for way in ALL_WAYS]
    assert sorted(names) == sorted({*names})


def test_every_rule_has_planted_defects_in_both_splits_or_cases_at_its_threshold() -> None:
    tuning, held_out = ({way.defect for way in ALL_WAYS if way.split == split} for split in ("tuning", "held_out"))
    measured = (tuning & held_out) | {case.rule for case in CASES}
    measured |= {*reading.REPETITION} if "repetition" in measured else set()
    measured |= {"trimmed"} if "truncated" in measured else set()
    assert {rule.name for rule in RULES} - measured == {"duplicate_text"}


@pytest.mark.parametrize("way", MORE_WAYS, ids=lambda way: f"{way.defect}: {way.name}")
def test_a_way_plants_the_same_again(way: Way) -> None:
    texts = planted(way, CAPTIONS)
    assert texts == planted(way, CAPTIONS)
    assert {*texts}.isdisjoint(map(Planted, CAPTIONS))


@pytest.mark.parametrize("way", [w for w in MORE_WAYS if w.split == "tuning"], ids=lambda w: f"{w.defect}: {w.name}")
def test_a_rule_finds_its_own_pattern(way: Way) -> None:
    for case in planted(way, CAPTIONS):
        assert reading.fires(way.defect, clean(case.text, case.finish_reason))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.says}")
def test_a_rule_that_compares_a_number_fires_exactly_past_it(case: Case) -> None:
    assert outcome(case) == case.fires


def test_labels_are_of_hashes_and_known_questions_and_hold_no_caption() -> None:
    labels = reading.load_labels()
    assert {*labels.values()} == {*reading.LABELS}
    questions = {re.sub(r"^[0-9a-f]{12} ?", "", key) for key in labels}
    assert questions == {"", *reading.QUESTIONS}
    assert list(labels) == sorted(labels)


def test_as_many_labels_of_a_question_as_were_read() -> None:
    counts = {q: sum(key.endswith(f" {q}") for key in reading.load_labels()) for q in reading.QUESTIONS}
    assert all(0 < n <= 40 for n in counts.values()), counts
    assert counts["open_end"] == counts["open_end, cut"]


def test_the_sample_is_of_captions_on_which_the_rule_fires_whatever_their_order() -> None:
    texts = [f"The image shows {i} small {c[0].lower()}{c[1:]}" for i, c in enumerate(CAPTIONS * 2)]
    fired, drawn = reading.sample(_judged([*texts, *CAPTIONS]), "stock_opening")
    assert (fired, len(drawn)) == (80, 40)
    assert {*drawn} <= {*texts}
    again = reading.sample(_judged([*CAPTIONS, *reversed(texts)]), "stock_opening")
    assert list(again[1]) == list(drawn)


def test_precision_counts_each_label_and_what_nobody_read(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"The image shows {i} small {c[0].lower()}{c[1:]}" for i, c in enumerate(CAPTIONS[:6])]
    keys = [f"{reading.key_of(text)} stock_opening" for text in texts]
    labels = dict(zip(keys[:5], ["right", "right", "right", "borderline", "wrong"], strict=True))  # one is not read
    reading.print_precision(_judged(texts), labels)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stock_opening")]
    assert line.split()[1:] == ["6", "6", "3", "(3)", "1", "(1)", "1", "(1)", "1", "(1)"]


def test_flags_are_counted_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for some in reading.GROUPS.values() for name in some]
    judged = {name: [(CAPTIONS[0], clean(CAPTIONS[0], "stop"))] for name in names}
    judged["haelm"] = [("A lantern by the old bridge", clean("A lantern by the old bridge", "stop"))]
    reading.print_flags(judged)
    rows = [line for line in capsys.readouterr().out.splitlines() if "(33.3%)" in line]
    assert len(rows) == 1
    assert rows[0].startswith("| FaithScore, HaELM, LLaVA-Bench (3) | 1 (33.3%) |")
