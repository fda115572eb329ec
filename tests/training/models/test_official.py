import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from schemas.errors import UserError
from training.models.config import DitConfig, PixArtConfig
from training.models.diffusers_keys import diffusers_config, for_diffusers, from_diffusers
from training.models.dit import DiT
from training.models.official import (
    NULL_CAPTION,
    POSITIONS,
    Choices,
    default_scale,
    from_official,
    from_official_dit,
    is_dit,
    to_official,
)
from training.models.pixart import PixArt

ALPHA = PixArtConfig(depth=2, hidden=48, heads=4, caption_channels=20, text_tokens=120, position_base=16)


def official(config: PixArtConfig | DitConfig, scale: float = 1.0, null_rows: int = 120) -> dict[str, Tensor]:
    """Random weights as the official code saves them; the positions by numpy, as that code makes them."""
    torch.manual_seed(0)
    model = PixArt(config) if isinstance(config, PixArtConfig) else DiT(config)
    state = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    side, half = config.position_base, config.hidden // 2
    grid = np.stack(np.meshgrid(*[np.arange(side, dtype=np.float32) / scale] * 2))
    omega = 1 / 10_000 ** (np.arange(half // 2, dtype=np.float64) / (half / 2))
    angles = [np.outer(axis.reshape(-1), omega) for axis in grid]
    table = np.concatenate([part for a in angles for part in (np.sin(a), np.cos(a))], axis=1)
    state[POSITIONS] = torch.from_numpy(table).float()[None]
    if isinstance(config, PixArtConfig):
        state[NULL_CAPTION] = torch.randn(null_rows, config.caption_channels)
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@st.composite
def configs(draw: st.DrawFn) -> PixArtConfig:
    heads = draw(st.integers(1, 3))
    depth = draw(st.integers(1, 3))
    base = draw(st.sampled_from([2, 3, 16, 32]))
    return PixArtConfig(
        depth=depth,
        hidden=12 * heads * draw(st.integers(1, 2)),
        heads=heads,
        patch=draw(st.sampled_from([1, 2, 4])),
        in_channels=draw(st.sampled_from([1, 4])),
        caption_channels=draw(st.integers(1, 9)),
        text_tokens=draw(st.integers(1, 9)),
        learn_sigma=draw(st.booleans()),
        micro_conditions=draw(st.booleans()),
        position_base=base,
        position_scale=draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])),
    )


@given(configs(), st.booleans(), st.booleans(), st.booleans())
def test_from_ours_to_official_and_back_is_the_identity(
    config: PixArtConfig, keep_null: bool, qk_norm: bool, compressed: bool
) -> None:
    config = dataclasses.replace(
        config,
        null_caption="buffer" if keep_null else "empty-string",
        qk_norm=qk_norm,
        compressed_layers=(config.depth - 1,) if compressed else (),
        compression=3 if compressed else 2,
    )
    ours = PixArt(config).state_dict()
    theirs, _ = to_official(ours, config)
    choices = Choices(heads=config.heads, text_tokens=config.text_tokens, null_caption=config.null_caption)
    back = from_official(theirs, choices)
    assert back.config == config
    assert same(back.state, dict(ours))
    assert same(to_official(back.state, back.config)[0], theirs)


@given(configs())
def test_from_ours_to_diffusers_and_back_is_the_identity(config: PixArtConfig) -> None:
    ours = PixArt(config).state_dict()
    _, theirs, dropped = for_diffusers(config, ours)
    back = from_diffusers(theirs, diffusers_config(config), Choices(text_tokens=config.text_tokens))
    assert not dropped
    assert back.config == config
    assert same(back.state, dict(ours))
    assert same(for_diffusers(back.config, back.state)[1], theirs)


@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([2, 16, 32]), st.booleans())
def test_a_dit_goes_out_and_comes_back_the_same(depth: int, classes: int, base: int, learn_sigma: bool) -> None:
    config = DitConfig(depth=depth, hidden=24, heads=2, classes=classes, position_base=base, learn_sigma=learn_sigma)
    ours = DiT(config).state_dict()
    theirs, _ = to_official(ours, config)
    assert is_dit(theirs)
    back = from_official_dit(theirs, Choices(heads=2))
    assert back.config == config
    assert same(back.state, dict(ours))


@pytest.mark.parametrize(
    ("base", "scale", "tokens", "micro_conditions"),
    [
        (16, 1.0, 120, False),  # α 256
        (32, 1.0, 120, False),  # α 512
        (64, 2.0, 120, True),  # α 1024-MS
        (16, 0.5, 300, False),  # Σ 256
        (64, 2.0, 300, False),  # Σ 1024
        (128, 4.0, 300, False),  # Σ 2K
    ],
)
def test_the_configuration_of_each_released_model_is_found_in_its_tensors(
    base: int, scale: float, tokens: int, micro_conditions: bool
) -> None:
    config = dataclasses.replace(
        ALPHA, position_base=base, position_scale=scale, text_tokens=tokens, micro_conditions=micro_conditions
    )
    state = official(config, scale, tokens)
    found = from_official(state, Choices(heads=4))
    assert found.config == config
    assert set(state) - set(found.state) == {POSITIONS, NULL_CAPTION}
    assert all(torch.equal(found.state[name], state[name]) for name in found.state)
    assert any(note.startswith(f"{NULL_CAPTION} dropped") for note in found.notes)
    assert any(note.startswith(f"{POSITIONS} dropped") for note in found.notes)
    assert default_scale(base, sigma=tokens == 300) == scale


def test_positions_that_go_out_are_those_of_the_official_code() -> None:
    state = official(dataclasses.replace(ALPHA, hidden=1152, heads=16, depth=1))
    found = from_official(state, Choices())
    assert found.config.heads == 16
    out = to_official(found.state, found.config)[0]
    torch.testing.assert_close(out[POSITIONS], state[POSITIONS], rtol=0, atol=1e-6)


def test_the_null_caption_stays_if_asked_for() -> None:
    state = official(ALPHA)
    found = from_official(state, Choices(heads=4, null_caption="buffer"))
    assert torch.equal(found.state[NULL_CAPTION], state[NULL_CAPTION])
    assert found.config.null_caption == "buffer"
    _, theirs, dropped = for_diffusers(found.config, found.state)
    assert NULL_CAPTION in dropped
    assert len(theirs) > len(found.state)


def test_a_checkpoint_without_positions_needs_to_be_told_the_resolution() -> None:
    state = official(ALPHA)
    del state[POSITIONS]
    with pytest.raises(UserError, match="nothing tells its resolution"):
        from_official(state, Choices(heads=4))
    alpha = from_official(state, Choices(heads=4, position_base=64))
    assert alpha.config.position_scale == 2
    sigma = {**state, NULL_CAPTION: torch.zeros(300, 20)}
    assert from_official(sigma, Choices(heads=4, position_base=16)).config.position_scale == 0.5


def renamed(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if name == old else name: tensor for name, tensor in state.items()}


def test_each_key_that_does_not_fit_is_named() -> None:
    good = official(ALPHA)
    bias = "blocks.1.attn.proj.bias"
    cases: list[tuple[dict[str, Tensor], Choices, str]] = [
        (
            renamed(good, bias, "blocks.1.attn.out.bias"),
            Choices(heads=4),
            rf"1 missing \({bias}\).*blocks\.1\.attn\.out",
        ),
        ({**good, "ema.step": torch.zeros(1)}, Choices(heads=4), r"1 unknown \(ema\.step\)"),
        ({**good, bias: torch.zeros(5)}, Choices(heads=4), rf"1 of another shape \({bias}\)"),
        ({**good, POSITIONS: good[POSITIONS] * 1.01}, Choices(heads=4), "differs by"),
        ({**good, POSITIONS: good[POSITIONS][:, :-1]}, Choices(heads=4), "no square of tokens"),
        (good, Choices(), "48 wide, which is no released size"),
        (good, Choices(heads=4, text_tokens=300), "says 120 tokens"),
        (good, Choices(heads=4, position_base=32), "made for 256 px"),
        (good, Choices(heads=4, position_scale=2.0), "differs by"),
        ({"a": torch.zeros(1)}, Choices(), "neither a PixArt nor a DiT"),
        (
            {**good, "x_embedder.proj.weight": torch.zeros(48)},
            Choices(),
            r"no x_embedder\.proj\.weight of 4 dimensions",
        ),
        ({**good, NULL_CAPTION: torch.zeros(())}, Choices(heads=4), "no y_embedder"),
        (
            {name: tensor for name, tensor in good.items() if name != NULL_CAPTION},
            Choices(heads=4, null_caption="buffer"),
            "to keep",
        ),
    ]
    for state, choices, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            from_official(state, choices)
        assert "\n" not in str(caught.value)


def test_many_keys_are_named_by_their_first_few() -> None:
    state = {name: tensor for name, tensor in official(ALPHA).items() if ".cross_attn." not in name}
    with pytest.raises(UserError, match=r"12 missing \(blocks\.0\.cross_attn\.kv_linear\.bias, .* and 7 more\)"):
        from_official(state, Choices(heads=4))


def test_a_dit_with_scaled_positions_is_refused() -> None:
    config = DitConfig(depth=1, hidden=48, heads=4, classes=3)
    with pytest.raises(UserError, match="never scaled"):
        from_official_dit(official(config, scale=2.0), Choices(heads=4))


def test_what_another_library_cannot_hold_is_refused() -> None:
    baseline = dataclasses.replace(ALPHA, modulation="per-block")
    with pytest.raises(UserError, match="adaLN per block"):
        to_official(PixArt(baseline).state_dict(), baseline)
    for change, words in (
        ({"modulation": "per-block"}, "adaLN per block"),
        ({"qk_norm": True}, "QK-norm"),
        ({"compressed_layers": (0,)}, "compression"),
        ({"mlp_ratio": 2.0}, "MLP ratio of 2"),
    ):
        config = dataclasses.replace(ALPHA, **change)
        with pytest.raises(UserError, match=words):
            for_diffusers(config, PixArt(config).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_type": "ada_norm"}, "norm_type"),
        ({"num_layers": None}, "num_layers"),
        ({"num_layers": "2"}, "num_layers"),
        ({"out_channels": 5}, "out_channels"),
        ({"cross_attention_dim": 96}, "cross_attention_dim"),
        ({"num_layers": 3}, r"blocks\.2"),
    ],
)
def test_a_configuration_that_is_no_pixarts_is_refused(change: dict[str, object], words: str) -> None:
    _, theirs, _ = for_diffusers(ALPHA, PixArt(ALPHA).state_dict())
    with pytest.raises(UserError, match=words) as caught:
        from_diffusers(theirs, diffusers_config(ALPHA) | change, Choices())
    assert "\n" not in str(caught.value)


def test_what_older_configurations_leave_out_is_what_diffusers_takes_it_for() -> None:
    config = dataclasses.replace(ALPHA, position_base=64, position_scale=2.0, micro_conditions=True)
    theirs = diffusers_config(config)
    del theirs["interpolation_scale"], theirs["use_additional_conditions"]
    state = for_diffusers(config, PixArt(config).state_dict())[1]
    assert from_diffusers(state, theirs, Choices()).config == config


def test_a_position_table_in_an_older_file_is_checked_and_dropped() -> None:
    ours = PixArt(ALPHA).state_dict()
    state = for_diffusers(ALPHA, ours)[1]
    table = official(ALPHA)[POSITIONS]
    found = from_diffusers({**state, "pos_embed.pos_embed": table}, diffusers_config(ALPHA), Choices())
    assert same(found.state, dict(ours))
    with pytest.raises(UserError, match=r"pos_embed\.pos_embed"):
        from_diffusers({**state, "pos_embed.pos_embed": table + 1}, diffusers_config(ALPHA), Choices())
