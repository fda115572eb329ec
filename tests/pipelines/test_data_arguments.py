import argparse
from pathlib import Path

import pytest

from pipelines.data_arguments import add_data_arguments, add_plan_arguments, mixture_of, policy_of
from schemas.errors import UserError
from training.data.mixture import Share, Source
from training.data.policy import Policy


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    add_plan_arguments(parser, "plan")
    return parser.parse_args(arguments)


def read(tmp_path: Path, text: str) -> tuple[tuple[Source, ...], tuple[Share, ...]]:
    (tmp_path / "mixture.toml").write_text(text)
    return mixture_of(parsed("--data", str(tmp_path / "mixture.toml")))


def test_the_simple_case_is_one_dataset_with_one_caption() -> None:
    sources, shares = mixture_of(parsed("--latents", "a", "--text", "b"))
    assert sources == (Source("", "a", ("b",)),)
    assert shares == (Share(),)
    assert policy_of(parsed("--caption-drop", "0"), shares, 2) == Policy(256)


def test_text_repeated_is_caption_variants_with_weights() -> None:
    urls = ("--text", "b=0.5", "--text", "s3://bucket/run=3/text", "--text", "c=d", "--text", "e=2")
    (source,), (share,) = mixture_of(parsed("--latents", "a", *urls))
    assert source.text == ("b", "s3://bucket/run=3/text", "c=d", "e")
    assert share.captions == (0.5, 1.0, 1.0, 2.0)


def test_flipped_latents_are_taken_half_of_the_time() -> None:
    flipped = ("--latents", "a", "--text", "b", "--latents-flipped", "f")
    assert mixture_of(parsed(*flipped))[1] == (Share(flipped=0.5),)
    assert mixture_of(parsed(*flipped, "--flip", "0.25"))[1] == (Share(flipped=0.25),)
    assert mixture_of(parsed(*flipped))[0][0].flipped == "f"


def test_a_mixture_is_read_with_paths_from_where_its_file_lies(tmp_path: Path) -> None:
    sources, shares = read(
        tmp_path,
        """
        [[dataset]]
        name = "sam"
        latents = "sam/latents"
        latents_flipped = "/elsewhere/flipped"
        flip = 0.1
        text = ["sam/text", {dir = "s3://bucket/alt", weight = 0.5}]
        weight = 2
        select = "sam.parquet"

        [[dataset]]
        latents = "b"
        text = "c"
        """,
    )
    assert sources == (
        Source(
            "sam",
            f"{tmp_path}/sam/latents",
            (f"{tmp_path}/sam/text", "s3://bucket/alt"),
            "/elsewhere/flipped",
            f"{tmp_path}/sam.parquet",
        ),
        Source("dataset-2", f"{tmp_path}/b", (f"{tmp_path}/c",)),
    )
    assert shares == (Share("sam", 2.0, (1.0, 0.5), 0.1), Share("dataset-2"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no"),
        ("[[dataset]", "not valid TOML"),
        ("dataset = 3", "names no"),
        ("seed = 3\n[[dataset]]\nlatents='a'\ntext='b'", "unknown keys seed"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nwieght=3", "unknown keys wieght; known are name, latents"),
        ("[[dataset]]\nname='x'\ntext='b'", "dataset x: latents is missing"),
        ("[[dataset]]\nlatents='a'\ntext=[{dir='b', weigth=1}]", "text: unknown keys weigth"),
        ("[[dataset]]\nlatents='a'\ntext=[3]", "text is neither"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nweight='two'", "weight is no number"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nweight=true", "weight is no number"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nweight=0", "weight 0.0 must be above 0"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nflip=0.5", "flip needs latents_flipped"),
        ("[[dataset]]\nlatents='a'\ntext='b'\nlatents_flipped='c'\nflip=2", "flip 2.0 is no share"),
        ("[[dataset]]\nlatents='a'\ntext=[{dir='b', weight=-1}]", "must be above 0"),
        ("[[dataset]]\nname='x'\nlatents='a'\ntext='b'\n[[dataset]]\nname='x'\nlatents='c'\ntext='d'", "one name"),
    ],
)
def test_a_mistake_in_a_mixture_is_told_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "b"), "no --latents given"),
        (("--latents", "a", "--text", "b=0"), "must be above 0"),
        (("--latents", "a", "--text", "b", "--flip", "0.5"), "--flip needs --latents-flipped"),
        (("--data", "/nowhere"), "cannot be read"),
        (("--data", "x.toml", "--latents", "a", "--flip", "0"), "leave out --latents, --flip"),
        (("--latents", "a", "--text", "b", "--global-batch", "0"), "--global-batch 0 is too small"),
        (("--latents", "a", "--text", "b", "--tokens-per-batch", "0"), "--tokens-per-batch 0 is too small"),
        (("--latents", "a", "--text", "b", "--shuffle-window", "-1"), "--shuffle-window -1 is negative"),
        (("--latents", "a", "--text", "b", "--global-batch", "8", "--tokens-per-batch", "9"), "Give one"),
    ],
)
def test_a_mistake_in_the_arguments_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    options = parsed(*arguments)
    with pytest.raises(UserError) as caught:
        policy_of(options, mixture_of(options)[1], 2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokens_stand_in_place_of_samples() -> None:
    policy = policy_of(parsed("--tokens-per-batch", "4096", "--tokens-counted", "text"), (Share(),), 4)
    assert (policy.global_batch, policy.tokens_per_batch, policy.latent_patch) == (0, 4096, 4)
    assert "batches of up to 4,096 text tokens" in policy.describe()
