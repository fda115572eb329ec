import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.checkpoints import resolve_checkpoint
from curation.compute import Compute
from curation.features.t5 import TextEncoder, batches_by_length, text_width
from schemas.errors import UserError


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(1, 200))
def test_batches_hold_every_text_once_and_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80))
def test_batches_go_from_short_to_long_so_that_padding_is_rare(lengths: list[int]) -> None:
    order = [lengths[i] for batch in batches_by_length(lengths, 100) for i in batch]
    assert order == sorted(lengths)


def test_padding_leaves_no_trace_beyond_rounding(tiny: Any) -> None:
    encoder = TextEncoder(resolve_checkpoint(str(tiny.t5), None), Compute())
    tokens = encoder.tokens(["a red barn", "two horses in the meadow and low hills behind them", "x"], 120)
    together = encoder.encode(tokens)
    for one, value in zip(tokens, together, strict=True):
        assert value.shape == (len(one), 64)
        np.testing.assert_allclose(encoder.encode([one])[0], value, atol=1e-5)


def test_a_cut_caption_ends_with_the_end_token(tiny: Any) -> None:
    encoder = TextEncoder(resolve_checkpoint(str(tiny.t5), None), Compute())
    short, long = encoder.tokens(["a red barn", "the meadow and the hills " * 50], 8)
    assert (len(long), long.truncated, long.ids[-1]) == (8, True, 1)
    assert (short.truncated, short.ids[-1]) == (False, 1)


def test_a_checkpoint_of_another_model_is_no_t5(tiny: Any) -> None:
    with pytest.raises(UserError, match="a AutoencoderKL, not a T5") as error:
        text_width(resolve_checkpoint(str(tiny.vae), None))
    assert "\n" not in str(error.value)


def test_a_t5_whose_tokenizer_files_are_missing_is_refused_in_one_line(tiny: Any, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny.t5 / name).read_bytes())
    with pytest.raises(UserError, match="does not know 'the picture shows a'") as error:
        TextEncoder(resolve_checkpoint(str(tmp_path), None), Compute())
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_never_made_up(tiny: Any, tmp_path: Path) -> None:
    for file in tiny.t5.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 3}))
    with pytest.raises(UserError, match="weights missing for encoder") as error:
        TextEncoder(resolve_checkpoint(str(tmp_path), None), Compute())
    assert "\n" not in str(error.value)


def test_a_file_of_the_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob that was removed")
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read \(No such file"):
        resolve_checkpoint(str(tmp_path), None)
