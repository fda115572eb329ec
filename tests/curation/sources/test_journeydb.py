"""Prompts without what only Midjourney understands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.refusal import Refusal
from curation.sources.base import ImageSample
from curation.sources.journeydb import JourneyDBSource, plain_prompt
from schemas.status import RejectReason


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a cat --ar 16:9 --v 4", "a cat"),
        ("a cat, sitting --v 5.1 --style raw --s 750", "a cat, sitting"),
        ("<https://s.mj.run/abc> https://cdn.discord.com/x/y.png?ex=1 a cat --iw 2", "a cat"),
        ("<https://s.mj.run/abc>", ""),
        ("--v 4", ""),
        ("a cat --no text, blur, people --v 5", "a cat"),
        ("a cat --no text", "a cat"),
        ("a cat —ar 2:3 –v 5", "a cat"),  # a phone's dashes
        ("a cat --ar 3:2--v 4", "a cat"),
        ("a cat --ar9:16 --q .25 --seed=12", "a cat"),
        ("a cat,--v 4 --hd", "a cat"),
        ("a cat --niji sitting down --tile", "a cat sitting down"),
        ("a cat --ar 16:9 , oil on canvas", "a cat, oil on canvas"),
        ("a cat --somethingnew 3 on a mat", "a cat on a mat"),
        ("a cat --sref https://x.y/z.png --cw 20", "a cat"),
        ("hot:: dog::2 bun::-.5", "hot, dog, bun"),
        ("a cat – or a dog — or not", "a cat – or a dog — or not"),
        ("a man—no hat, 16:9 screen, sci--fi", "a man—no hat, 16:9 screen, sci--fi"),
        ("  a   cat\n on a mat ", "a cat on a mat"),
        ("a cat , , on a mat ,", "a cat, on a mat"),
    ],
)
def test_parameters_weights_and_urls_go_and_words_stay(prompt: str, plain: str) -> None:
    assert plain_prompt(prompt) == plain


@given(st.text("ab ,-—:.1 vno", max_size=40))
def test_a_plain_prompt_is_plain_already(prompt: str) -> None:
    once = plain_prompt(prompt)
    assert once == " ".join(once.split()).strip(" ,")


def read(annotation: object) -> ImageSample | Refusal:
    source = JourneyDBSource()
    assert source.members(("jpg", "txt", "json")) == ("jpg", "json")
    return source.sample("000/a", {"jpg": b"picture", "json": json.dumps(annotation).encode()})


def test_the_annotation_is_kept_whole_with_the_raw_prompt_in_it() -> None:
    annotation = {"img_path": "./000/a.jpg", "prompt": "a cat --v 4", "Task2": {"Caption": "A cat."}}
    sample = read(annotation)
    assert isinstance(sample, ImageSample)
    assert sample.caption == "a cat"
    assert sample.extra == annotation


@pytest.mark.parametrize("annotation", [{}, {"prompt": None}, {"prompt": "--v 4"}, {"prompt": " "}])
def test_without_a_prompt_there_is_a_picture_without_a_caption(annotation: object) -> None:
    sample = read(annotation)
    assert isinstance(sample, ImageSample)
    assert sample.caption is None


def test_a_picture_without_annotation_has_no_caption() -> None:
    sample = JourneyDBSource().sample("a", {"jpg": b"picture"})
    assert isinstance(sample, ImageSample)
    assert sample.caption is None


def test_a_prompt_that_is_no_text_is_refused() -> None:
    refused = read({"prompt": 3})
    assert isinstance(refused, Refusal)
    assert refused.reason == RejectReason.BAD_METADATA
