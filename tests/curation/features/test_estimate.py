from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.checkpoints import resolve_checkpoint
from curation.execution.summary import JobSummary
from curation.features.codec import CODECS, Codec, encode
from curation.features.estimate import embedding_bytes, estimate_latents, estimate_text, sampled_rows
from curation.features.latents import LatentsStage
from curation.features.storage import npy_bytes
from curation.features.t5 import text_width
from curation.features.text import TextStage
from curation.features.vae import describe_vae
from curation.shards.target import Target
from curation.sources.webdataset import WebdatasetSource
from schemas.errors import UserError
from schemas.reading import open_dataset
from schemas.selection import Selection, make_selection

SENTENCE = "a red barn by the narrow river with two horses in a meadow and low hills behind them"
WORDS = SENTENCE.split()


@pytest.fixture
def latents(tiny: Any, tmp_path: Path) -> LatentsStage:
    vae = describe_vae(resolve_checkpoint(str(tiny.vae), None))
    return LatentsStage(Target(str(tmp_path / "latents")), WebdatasetSource(), vae, resolution=64, batch_size=2)


@pytest.fixture
def text(tiny: Any, tmp_path: Path) -> TextStage:
    checkpoint = resolve_checkpoint(str(tiny.t5), None)
    return TextStage(Target(str(tmp_path / "text")), checkpoint, text_width(checkpoint), max_tokens=12)


def written(url: str) -> int:
    """Bytes of tars, indexes and the null embedding."""
    root = Path(url)
    return sum(p.stat().st_size for p in [*root.glob("*.tar"), *root.glob("index/*"), *root.glob("null.text.npy")])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("tokens", "dim"), [(1, 64), (7, 24), (120, 4096)])
def test_the_length_of_a_member_is_told_to_the_byte(codec: Codec, tokens: int, dim: int) -> None:
    stored = encode(np.ones((tokens, dim), np.float32), codec)
    assert stored is not None
    assert abs(embedding_bytes(tokens, dim, codec) - len(npy_bytes(stored))) <= 64  # the header's padding


def test_a_job_over_few_shards_is_told_nearly_exactly_before_and_after_they_are_indexed(
    latents: LatentsStage, picture: Any, write_tar: Any, run_images: Callable[..., JobSummary], tmp_path: Path
) -> None:
    urls = [
        write_tar(tmp_path / f"s{s}.tar", {f"{i}.jpg": picture(80, 90, i) for i in range(20 + s)}) for s in range(2)
    ]
    before = estimate_latents(latents, urls)
    assert not Path(latents.target.url).exists()
    run_images(latents, urls)
    after = estimate_latents(latents, urls)
    assert (before.rows, before.low, before.high) == (41, before.bytes, before.bytes)
    assert (after.bytes, after.low, after.high) == (before.bytes, before.low, before.high)
    # Footers of tiny files (end of tar, Parquet schema) are all that is left out.
    assert 0.8 < before.bytes / written(latents.target.url) < 1.1


def test_shards_beyond_the_sample_are_guessed_with_an_interval(
    latents: LatentsStage, picture: Any, write_tar: Any, tmp_path: Path
) -> None:
    urls = [
        write_tar(tmp_path / f"s{s}.tar", {f"{i}.jpg": picture(60 + 20 * s, 90, i) for i in range(5 + s)})
        for s in range(8)
    ]
    told = estimate_latents(latents, urls)
    assert told.low < told.bytes < told.high
    each = told.bytes / told.rows
    assert told.low <= each * sum(5 + s for s in range(8)) <= told.high
    assert "headers of 4 read now, 4 taken" in told.basis[0]
    aspect = estimate_latents(replace(latents, buckets="aspect", resolution=256), urls)
    assert "interval spans" in aspect.basis[-1]


def test_of_a_selection_the_number_of_latents_is_known(
    latents: LatentsStage, picture: Any, write_tar: Any, tmp_path: Path
) -> None:
    urls = [write_tar(tmp_path / f"s{s}.tar", {f"{i}.jpg": picture(80, 90, i) for i in range(9)}) for s in range(2)]
    told = estimate_latents(latents, urls, selection("s0", "3", "4"))
    assert (told.rows, told.low, told.high) == (2, told.bytes, told.bytes)
    assert told.bytes == estimate_latents(latents, urls).bytes * 2 / 18
    assert "2 samples of the selection" in told.basis


def test_something_that_is_no_tar_cannot_be_estimated(latents: LatentsStage, tmp_path: Path) -> None:
    (tmp_path / "s0.tar").write_bytes(b"text" * 400)
    with pytest.raises(UserError, match=r"s0\.tar: its headers cannot be read"):
        estimate_latents(latents, [str(tmp_path / "s0.tar")])


@pytest.mark.parametrize("codec", CODECS)
def test_text_is_told_nearly_exactly_where_every_caption_was_read(
    text: TextStage, write_captions: Any, run_text: Callable[..., JobSummary], codec: Codec
) -> None:
    texts: list[Any] = [" ".join(WORDS[: 1 + (7 * i) % len(WORDS)]) for i in range(40)]
    captions = write_captions({"s0": [*texts, {"status": "refusal"}], "s1": texts})
    stage = replace(text, codec=codec)
    told = estimate_text(stage, open_dataset(captions, "captions"))
    assert not Path(stage.target.url).exists()
    run_text(stage.with_null(None), captions)
    assert told.rows == pytest.approx(80)
    assert told.low == told.bytes == told.high
    assert 0.85 < told.bytes / written(stage.target.url) < 1.1


def test_more_captions_than_are_read_give_an_interval_that_holds_the_truth(
    text: TextStage, write_captions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(WORDS[: 1 + (7 * i) % len(WORDS)]) for i in range(90)]
    captions = open_dataset(write_captions({"s0": texts, "s1": texts[:50]}), "captions")
    truth = estimate_text(text, captions)
    monkeypatch.setattr("curation.features.estimate.SAMPLED_CAPTIONS", 30)
    told = estimate_text(text, captions)
    assert told.low < told.bytes < told.high
    assert told.low <= truth.bytes <= told.high
    assert told.basis[0].startswith("30 of 140 captions read: 30 usable")


def test_of_a_selection_the_drawn_captions_that_are_in_it_are_carried_over(
    text: TextStage, write_captions: Any, tmp_path: Path
) -> None:
    texts = [" ".join(WORDS[: 1 + (7 * i) % len(WORDS)]) for i in range(40)]
    captions = open_dataset(write_captions({"s0": texts}), "captions")
    alone = open_dataset(write_captions({"s0": [texts[3], texts[8]]}, str(tmp_path / "alone")), "captions")
    told = estimate_text(text, captions, selection("s0", "folder/0003", "folder/0008"))
    assert (told.rows, told.bytes) == (2, estimate_text(text, alone).bytes)
    with pytest.raises(UserError, match="too few to estimate"):
        estimate_text(text, captions, selection("s0", "folder/9999"))


def selection(shard: str, *keys: str) -> Selection:
    return make_selection(pa.table({"shard": [shard] * len(keys), "key": keys}))


def test_sampled_rows_are_within_their_units_and_always_the_same() -> None:
    counts = {"a": 400, "b": 0, "c": 300}
    rows = sampled_rows(counts)
    assert rows == sampled_rows(counts)
    assert sum(map(len, rows.values())) == 512
    assert all(0 <= row < counts[unit] for unit, numbers in rows.items() for row in numbers)
    assert sampled_rows({}) == {}
