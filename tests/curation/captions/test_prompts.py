import pytest

from curation.captions.prompts import NAMED_PROMPTS, prompt_named
from schemas.errors import UserError


def test_the_papers_prompts_go_by_name() -> None:
    assert prompt_named("sam").template == "Describe this image and its style in a very detailed manner"
    assert prompt_named("laion").template == NAMED_PROMPTS["laion"]


def test_a_raw_caption_is_put_in_and_its_line_left_out_where_missing() -> None:
    prompt = prompt_named("laion")
    assert prompt.text("a dog", None, {}) == ("a dog\n" + NAMED_PROMPTS["sam"], ())
    assert prompt.text(None, None, {}) == (NAMED_PROMPTS["sam"], ("caption",))


def test_fields_of_the_source_can_be_used() -> None:
    prompt = prompt_named("Seen at {place}.\nDescribe it.")
    assert prompt.text(None, 3, {"place": "Oslo"}) == ("Seen at Oslo.\nDescribe it.", ())


def test_braces_in_a_raw_caption_are_left_alone() -> None:
    assert prompt_named("laion").text("a {weird} caption", None, {})[0].startswith("a {weird} caption\n")


@pytest.mark.parametrize(
    "text", ["", "   ", "{", "{}", "{0}", "{caption}", "a {b-c} d\nx", "n {label:d}\nx", "{caption!r}\nx"]
)
def test_templates_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--prompt"):
        prompt_named(text)
