import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.engine import FinishReason
from curation.captions.quality import clean
from schemas.status import USABLE_STATUSES, CaptionStatus

GOOD = "A brown dog runs over wet sand. Behind it the sea is grey and calm. The light is soft, as in early morning."

LOOP = "A dog. " + "Behind it stretches a very long and winding path that leads towards the " * 2
HATS = "A cat on a hat" + " on top of a hat" * 5


@pytest.mark.parametrize(
    ("text", "finish", "status"),
    [
        (GOOD, "stop", CaptionStatus.OK),
        ("", "stop", CaptionStatus.EMPTY),
        ("  \n ", "stop", CaptionStatus.EMPTY),
        (GOOD + " In the distance two small", "length", CaptionStatus.TRIMMED),
        ("A brown dog runs over wet sand and behind it the sea is", "length", CaptionStatus.TRUNCATED),
        (
            LOOP,
            "length",
            CaptionStatus.REPETITION,
        ),
        (
            HATS,
            "stop",
            CaptionStatus.REPETITION,
        ),
        ("I'm sorry, but I cannot see any picture here.", "stop", CaptionStatus.REFUSAL),
        ("USER: Describe this image ASSISTANT: A dog runs over the sand.", "stop", CaptionStatus.LEAK),
        ("A dog.", "stop", CaptionStatus.TOO_SHORT),
        ("whatever", "error", CaptionStatus.ENGINE_ERROR),
    ],
)
def test_each_fault_gives_its_status(text: str, finish: FinishReason, status: CaptionStatus) -> None:
    assert clean(text, finish).status is status


def test_a_trimmed_caption_ends_with_its_last_whole_sentence() -> None:
    assert clean(GOOD + " In the distance two small", "length").text == GOOD


def test_a_caption_that_met_the_limit_at_its_last_full_stop_is_ok() -> None:
    assert clean(GOOD, "length").status is CaptionStatus.OK


def test_stock_openings_and_open_ends_are_flagged_and_kept() -> None:
    cleaned = clean("The image features a brown dog on wet sand, with a calm sea behind it", "stop")
    assert cleaned.status is CaptionStatus.OK
    assert cleaned.flags == ("open_end", "stock_opening")


@given(st.text(max_size=400), st.sampled_from(["stop", "length", "error"]))
def test_any_text_gets_one_status_and_text_only_where_usable(text: str, finish: FinishReason) -> None:
    cleaned = clean(text, finish)
    assert (cleaned.text != "") == (cleaned.status in USABLE_STATUSES)
    assert list(cleaned.flags) == sorted(set(cleaned.flags))
    assert "  " not in cleaned.text
