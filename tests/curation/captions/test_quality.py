import dataclasses
import re

import pytest
from captions_dataset import PROMPT
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.engine import FinishReason
from curation.captions.quality import DEFAULTS, RULES, RULES_VERSION, clean, gather, judge, measure
from curation.captions.quality_text import squeeze
from curation.captions.quality_thresholds import Thresholds, describe_thresholds, thresholds_with
from schemas.errors import UserError
from schemas.status import USABLE_STATUSES, CaptionStatus

GOOD = "A brown dog runs over wet sand. Behind it the sea is grey and calm. The light is soft, as in early morning."
OPEN = " In the distance two small"

LOOP = "A dog. " + "Behind it stretches a very long and winding path that leads towards the " * 2
HATS = "A cat on a hat" + " on top of a hat" * 5
VARIED = " ".join(
    f"A {colour} boat lies at the long wooden pier in the harbour." for colour in ("red", "blue", "white", "old")
)
GERMAN = "Ein brauner Hund läuft über den nassen Sand am Meer, und hinter ihm ist das Wasser ruhig und grau."


@pytest.mark.parametrize(
    ("text", "finish", "status"),
    [
        (GOOD, "stop", "ok"),
        ("", "stop", "empty"),
        ("  \n\x00 ", "stop", "empty"),
        (GOOD + OPEN, "length", "trimmed"),
        (GOOD + OPEN, "stop", "trimmed"),
        ("A brown dog runs over wet sand and behind it the sea is", "length", "truncated"),
        (
            "Short. " + "A brown dog runs over the wet sand and the sea behind it is as calm and grey as",
            "stop",
            "truncated",
        ),
        (GOOD + " It is...", "length", "trimmed"),
        (GOOD + " It stands near the bust of Dr.", "length", "trimmed"),
        (LOOP, "length", "repetition"),
        (HATS, "stop", "repetition"),
        (VARIED, "stop", "repetition"),
        (GOOD + " the light is SOFT as in early morning.", "stop", "repetition"),
        (GOOD + " It is very very very very nice.", "stop", "repetition"),
        (GOOD + " Wow!!!!!!!!!!!!", "stop", "repetition"),
        ("I'm sorry, but I cannot see any picture here.", "stop", "refusal"),
        ("Please upload the image again. " + GOOD, "stop", "refusal"),
        ("There is no image here to provide a caption for.", "stop", "refusal"),
        ("USER: Describe this image ASSISTANT: A dog runs over the sand.", "stop", "leak"),
        (GOOD + "<|eot_id|>", "stop", "leak"),
        (GERMAN, "stop", "non_english"),
        ("На мокром песке бежит коричневая собака, а за ней спокойное море.", "stop", "non_english"),
        ("A dog.", "stop", "too_short"),
        ("The image features a dog.", "stop", "too_short"),
        ("whatever", "error", "engine_error"),
    ],
)
def test_each_fault_gives_its_status(text: str, finish: FinishReason, status: str) -> None:
    cleaned = clean(text, finish)
    assert cleaned.status.value == status
    assert (cleaned.text == "") == (cleaned.status not in USABLE_STATUSES)


@pytest.mark.parametrize(
    "text",
    [
        "A man in a red shirt that says “I'm sorry” holds a sign with no words on it in front of a shop.",
        'A poster reads "Please share your photo with us" above a wooden bench in a small green park.',
        "A World War I biplane with no wheels hangs from the ceiling of a bright museum hall.",
        "The man in the photo can not see the dog that waits for him behind the old blue car.",
        "A jar of honey labelled ルイヴィトン stands on the table beside a cup of tea and a spoon.",
        "The first boat on the left is red. The second boat on the left is blue. The sea is calm.",
        "A sign for St. Mary's church stands by the road near the house of Mr. J. Smith and his wife.",
        "A bus, a car, a truck and a van wait at a red light in front of a tall grey tower.",
    ],
)
def test_what_only_looks_like_a_fault_is_ok(text: str) -> None:
    assert (clean(text, "stop").status, clean(text, "stop").text) == (CaptionStatus.OK, text)


def test_a_trimmed_caption_ends_with_its_last_whole_sentence() -> None:
    assert clean(GOOD + OPEN, "length").text == GOOD
    assert clean('The sign says "Stop here." A brown dog runs', "length", thresholds_with(["trim_keeps=0.1"])).text == (
        'The sign says "Stop here."'
    )


def test_a_caption_that_met_the_limit_at_its_last_full_stop_is_ok() -> None:
    assert clean(GOOD, "length").status is CaptionStatus.OK


def test_a_short_or_unpunctuated_open_end_is_flagged_and_kept_where_the_engine_ended_by_itself() -> None:
    for text in ("a brown dog runs over wet sand", "A brown dog. It runs over wet sand"):
        cleaned = clean(text, "stop")
        assert (cleaned.text, cleaned.status, cleaned.flags) == (text, CaptionStatus.OK, ("open_end",))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The image features a brown dog on wet sand.", "A brown dog on wet sand."),
        ("This picture beautifully shows a brown dog on wet sand.", "A brown dog on wet sand."),
        ("In the image, there is a brown dog on sand.", "There is a brown dog on sand."),
        ("Sure! Here is a description of the image: The image shows two dogs on wet sand.", "Two dogs on wet sand."),
        ("The image is a black and white photo of a dog.", "A black and white photo of a dog."),
        ("The image shows that a dog runs on wet sand.", "The image shows that a dog runs on wet sand."),
        ("A brown dog in the image features a red collar.", "A brown dog in the image features a red collar."),
        ("The scene is calm. It depicts a dog on wet sand.", "The scene is calm. It depicts a dog on wet sand."),
    ],
)
def test_a_stock_opening_comes_off_where_what_is_left_stands_alone(text: str, kept: str) -> None:
    cleaned = clean(text, "stop")
    assert (cleaned.text, cleaned.status) == (kept, CaptionStatus.OK)
    assert ("stock_opening" in cleaned.flags) == (text != kept)


def test_openings_stay_on_request() -> None:
    text = "The image features a brown dog on wet sand."
    cleaned = clean(text, "stop", thresholds_with(["strip_openings=0"]))
    assert (cleaned.text, cleaned.flags) == (text, ("stock_opening",))


def test_words_of_the_prompt_in_the_answer_are_a_leak_and_its_fields_are_not() -> None:
    echo = GOOD + " ITS STYLE IN A VERY detailed manner."
    assert clean(echo, "stop", prompt=PROMPT).status is CaptionStatus.LEAK
    assert clean(echo, "stop").status is CaptionStatus.OK
    template = "{caption}\n" + PROMPT
    assert clean(GOOD, "stop", prompt=template).status is CaptionStatus.OK
    assert (
        clean("Describe this image and its style: a dog on sand.", "stop", prompt=template).status is CaptionStatus.LEAK
    )


def test_what_does_not_decide_is_flagged_and_the_status_itself_is_not() -> None:
    cleaned = clean("The image shows a dog. " + "It runs. It runs over wet sand. " * 12, "stop")
    assert cleaned.status is CaptionStatus.REPETITION
    assert {"repeated_4grams", "repeated_sentences", "stock_opening"} <= set(cleaned.flags)
    assert "too_short" not in clean("A dog.", "stop").flags
    assert clean("Sorry, I can't.", "stop").flags == ("too_short",)


def test_unsure_and_long_captions_are_flagged_and_usable() -> None:
    assert clean(GOOD, "stop", mean_logprob=-1.5).flags == ("uncertain",)
    assert clean(GOOD, "stop", mean_logprob=-0.5).flags == ()
    assert "too_long" in clean(GOOD, "stop", thresholds_with(["max_words=10"])).flags


@pytest.mark.parametrize(("tokens", "flags"), [(120, ()), (121, ("over_120",)), (301, ("over_120", "over_300"))])
def test_t5_tokens_are_of_the_kept_text_and_flagged_past_the_two_limits(tokens: int, flags: tuple[str, ...]) -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return tokens

    cleaned = clean(GOOD + OPEN, "length", t5_tokens=count)
    assert (cleaned.n_t5_tokens, cleaned.flags, counted) == (tokens, flags, [GOOD])
    assert clean("A dog.", "stop", t5_tokens=count).n_t5_tokens is None


def test_a_text_on_many_rows_is_a_duplicate_unless_something_worse_is_wrong() -> None:
    def judged(text: str) -> CaptionStatus:
        return judge(dataclasses.replace(gather(text, "stop"), is_duplicate=True)).status

    assert judged(GOOD) is CaptionStatus.DUPLICATE_TEXT
    assert judged(GOOD + OPEN) is CaptionStatus.DUPLICATE_TEXT
    assert judged("I cannot see any image.") is CaptionStatus.REFUSAL


def test_every_rule_has_its_own_name_a_version_and_thresholds_that_exist_and_every_threshold_a_rule() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(1 <= rule.version <= RULES_VERSION for rule in RULES)
    compared = {name for rule in RULES for name in rule.compares}
    assert compared == {known.name for known in dataclasses.fields(Thresholds)}
    statuses = {rule.status for rule in RULES if rule.status}
    assert statuses | {CaptionStatus.OK} == set(CaptionStatus)
    assert len(describe_thresholds()) == len(compared)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["min_word=3"], "unknown; known are min_words"),
        (["min_words"], "int expected"),
        (["max_compression=nan"], "must be a number from"),
        (["trim_keeps=1.5"], "from 0 to 1"),
        (["min_words=3", "min_words=4"], "given twice"),
        (["duplicate_rows=1"], "would call every text a duplicate"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        thresholds_with(changes)


def test_a_threshold_changes_its_rule_and_no_other() -> None:
    assert clean("A small brown dog.", "stop", thresholds_with(["min_words=4"])).status is CaptionStatus.OK
    assert thresholds_with([]) == DEFAULTS
    assert clean(HATS, "stop", thresholds_with(["max_repeated_4grams=1"])).status is CaptionStatus.OK


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(
            [GOOD, OPEN, HATS, GERMAN, "The image shows ", "In the image, ", "a dog", ".", "...", " Dr. ", "\n"]
        ),
        st.sampled_from(
            ["I'm sorry. ", "Please provide it. ", "USER: ", PROMPT, "</s>", "!", '"', "”", "A. ", "\ud800", "é" * 9]
        ),
    ),
    max_size=12,
).map("".join)


@given(TEXTS, st.sampled_from(["stop", "length", "error"]), st.sampled_from(["", PROMPT, "{caption}\n" + PROMPT]))
def test_any_text_gets_one_status_and_text_only_where_usable(text: str, finish: FinishReason, prompt: str) -> None:
    cleaned = clean(text, finish, prompt=prompt)
    assert (cleaned.text != "") == (cleaned.status in USABLE_STATUSES)
    assert list(cleaned.flags) == sorted(set(cleaned.flags))
    assert cleaned.status.value not in cleaned.flags
    measure(text)


@given(TEXTS, st.sampled_from(["stop", "length"]))
def test_the_cleaned_text_is_a_stretch_of_the_generated_one_but_for_its_first_letter(
    text: str, finish: FinishReason
) -> None:
    cleaned = clean(text, finish)
    whole = squeeze(text)
    assert cleaned.text[1:] in whole
    assert cleaned.text in whole or cleaned.text[0].lower() + cleaned.text[1:] in whole


@given(TEXTS, st.sampled_from(["stop", "length"]))
def test_cleaning_what_was_cleaned_changes_nothing(text: str, finish: FinishReason) -> None:
    once = clean(text, finish, prompt=PROMPT)
    if once.status in USABLE_STATUSES:
        again = clean(once.text, "stop", prompt=PROMPT)
        assert (again.text, again.status) == (once.text, CaptionStatus.OK)


@given(TEXTS)
def test_white_space_makes_no_difference(text: str) -> None:
    assert clean("  " + text.replace(" ", " \n "), "stop") == clean(text, "stop")
