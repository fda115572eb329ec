from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captions_dataset import caption_row, write_captions

from curation.captions.canary import CANARY_LIMITS, Canary
from curation.shards.target import Target
from schemas.errors import ExitCode, GuardError
from schemas.status import CaptionStatus

ROWS = 50
REFUSAL = "I'm sorry, but I cannot see the image."


def good(number: int) -> str:
    return f"Picture number {number} shows a small boat of the year {1900 + number} in a quiet harbour."


def looked_at(canary: Canary, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        canary.see(caption_row(f"{number:03}", "s0", text))


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(ROWS, Target(str(tmp_path / "captions")), "f" * 32)


def test_good_captions_pass(canary: Canary) -> None:
    looked_at(canary, [good(n) for n in range(3 * ROWS)])


@pytest.mark.parametrize(
    ("bad", "kind", "allowed"),
    [
        (lambda n: REFUSAL, "refusal", 1),
        (lambda n: f"USER: {good(n)}", "leak", 1),
        (lambda n: "", "empty", 1),
        (lambda n: good(1000), "duplicate", 3),  # the first of its kind is not one
        (lambda n: good(n) + " The end of it. The end of it. Is the end of it.", "repetition", 5),
        (lambda n: good(n) + " Here another sentence begins, and it is not", "truncated", 10),
        (lambda n: f"Number {n}.", "too_short", 10),
        (lambda n: f"Das Bild {n} zeigt ein kleines Boot und einen Hafen mit der Stadt.", "non_english", 2),
    ],
)
def test_one_more_bad_caption_than_the_limit_stops_and_the_limit_itself_does_not(
    tmp_path: Path, bad: Callable[[int], str], kind: str, allowed: int
) -> None:
    def texts(count: int) -> list[str]:
        return [bad(n) if n < count else good(n) for n in range(ROWS)]

    target = Target(str(tmp_path / "captions"))
    looked_at(Canary(ROWS, target, "f"), texts(allowed))
    with pytest.raises(GuardError, match=rf"{kind} \(limit {CANARY_LIMITS[kind]:.0%}\)") as stopped:
        looked_at(Canary(ROWS, target, "f"), texts(allowed + 1))
    assert stopped.value.exit_code == ExitCode.STOPPED
    assert "\n" not in str(stopped.value)
    assert "--canary 0" in str(stopped.value)


def test_it_shows_at_most_eight_with_key_status_and_text(canary: Canary) -> None:
    with pytest.raises(GuardError) as stopped:
        looked_at(canary, [REFUSAL + "\n" * (n % 2) for n in range(ROWS)])
    notes = stopped.value.__notes__
    assert len(notes) == 8
    assert notes[0] == f'  s0/000  refusal  "{REFUSAL}"'


def test_nothing_is_judged_before_all_of_them_are_there_nor_after(canary: Canary) -> None:
    looked_at(canary, [REFUSAL] * (ROWS - 1))
    passed = Canary(ROWS, Target("nowhere"), "f")
    looked_at(passed, [good(n) for n in range(ROWS)])
    for number in range(ROWS):
        passed.see(caption_row(f"later-{number}", "s0", REFUSAL))


def test_a_unit_that_is_tried_again_is_not_counted_twice(canary: Canary) -> None:
    for _ in range(3):
        looked_at(canary, [REFUSAL, *(good(n) for n in range(ROWS - 2))])
    looked_at(canary, [good(n) for n in range(ROWS)])  # the first row came out well at last


def test_a_dataset_that_holds_as_many_captions_of_the_same_settings_has_passed(tmp_path: Path) -> None:
    folder = write_captions(tmp_path / "captions", {"s0": [good(n) for n in range(ROWS)]})
    looked_at(Canary(ROWS, Target(str(folder)), "f" * 32), [REFUSAL] * ROWS)
    with pytest.raises(GuardError):
        looked_at(Canary(ROWS, Target(str(folder)), "of other settings"), [REFUSAL] * ROWS)
    with pytest.raises(GuardError):
        looked_at(Canary(ROWS + 1, Target(str(folder)), "f" * 32), [REFUSAL] * (ROWS + 1))


def test_none_looks_at_nothing() -> None:
    looked_at(Canary(0, Target("nowhere"), "f"), [REFUSAL] * 3)


def test_every_limit_is_of_a_status_or_of_duplicates() -> None:
    known: set[Any] = {status.value for status in CaptionStatus} | {"duplicate"}
    assert set(CANARY_LIMITS) <= known
