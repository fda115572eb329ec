import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.errors import UserError
from training.data.sources import Facts
from training.diffusion.config import ObjectiveConfig, to_metadata
from training.models.config import DitConfig, PixArtConfig
from training.models.reading import Reading
from training.models.reparameterise import reparameterise
from training.network import network_of
from training.stages import STAGES
from training.weights.files import save_weights
from training.weights.handoff import Config, Start, hand_over

DIT = DitConfig(depth=2, hidden=48, heads=2, classes=5, position_base=4)
PIXART = PixArtConfig(depth=2, hidden=48, heads=2, caption_channels=16, text_tokens=8, position_base=4)
METADATA = {"images_seen": "1000", "kind": "ema", "vae_scaling_factor": "0.18215", "vae_shift_factor": "0.0"}


def drawn(config: Config, seed: int) -> nn.Module:
    """A model none of whose tensors is zero."""
    torch.manual_seed(seed)
    model = network_of(config).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def written(folder: Path, config: Config, stage: str = "") -> Path:
    metadata = METADATA | ({"stage": stage} if stage else {}) | to_metadata(ObjectiveConfig())
    save_weights(folder / "w.safetensors", drawn(config, 1).state_dict(), config, metadata)
    return folder / "w.safetensors"


def test_the_next_stage_copies_every_tensor_of_an_equal_model(tmp_path: Path) -> None:
    fresh = drawn(PIXART, 2).state_dict()
    state, report = hand_over(written(tmp_path, PIXART), fresh, PIXART, None, 0)
    for name, tensor in drawn(PIXART, 1).state_dict().items():
        assert torch.equal(state[name], tensor)
    assert set(report.copied) == set(fresh)
    assert (report.computed, report.new, report.left_out) == ((), (), ())
    assert f"PixArt: {len(fresh)} tensors copied, 0 computed, 0 drawn anew" in report.lines()[0]


@pytest.mark.parametrize("reading", [Reading(), Reading("fresh", "null-class", 250)])
def test_a_dit_becomes_the_pixart_of_its_reading_and_each_tensor_is_accounted_for(
    tmp_path: Path, reading: Reading
) -> None:
    path, dit = written(tmp_path, DIT), drawn(DIT, 1).state_dict()
    state, report = hand_over(path, drawn(PIXART, 2).state_dict(), PIXART, reading, seed=7)
    expected = reparameterise(dit, DIT, PIXART, reading, 7)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    named = [*report.copied, *report.computed, *report.new]
    assert sorted(named) == sorted(expected)
    assert all(torch.equal(state[name], dit[name]) for name in report.copied)
    assert all(name.startswith(("y_embedder.", "blocks.", "t_block.")) for name in report.new)
    assert ("t_block.1.weight" in report.new) == (reading.shared == "fresh")
    assert {name for name in report.left_out if "adaLN" not in name} == {"y_embedder.embedding_table.weight"}
    lines = report.lines()
    assert "blocks.*.cross_attn.kv_linear.bias × 2" in lines[2]
    assert "blocks.*.scale_shift_table × 2" in lines[1]


def test_micro_conditions_are_declared_new_and_nothing_else_is(tmp_path: Path) -> None:
    larger = dataclasses.replace(PIXART, micro_conditions=True, position_base=8, position_scale=2.0)
    fresh = drawn(larger, 2).state_dict()
    state, report = hand_over(written(tmp_path, PIXART), fresh, larger, None, 0)
    assert {name.partition(".")[0] for name in report.new} == {"csize_embedder", "ar_embedder"}
    assert len(report.new) == 8
    assert all(torch.equal(state[name], fresh[name]) for name in report.new)
    assert report.lines()[-1] == "  positions: 4 tokens a side, scale 1 before, 8 tokens a side, scale 2 now"
    with pytest.raises(UserError, match=r"8 tensors do not fit the model \(ar_embedder"):
        hand_over(written(tmp_path, larger), drawn(PIXART, 2).state_dict(), PIXART, None, 0)


def test_the_released_null_caption_is_left_out_kept_or_drawn_as_asked(tmp_path: Path) -> None:
    keeping = dataclasses.replace(PIXART, null_caption="buffer")
    name = "y_embedder.y_embedding"
    path = written(tmp_path, keeping)
    assert hand_over(path, drawn(PIXART, 2).state_dict(), PIXART, None, 0)[1].left_out == (name,)
    state, report = hand_over(path, drawn(keeping, 2).state_dict(), keeping, None, 0)
    assert torch.equal(state[name], drawn(keeping, 1).state_dict()[name])
    assert name in report.copied
    assert hand_over(written(tmp_path, PIXART), drawn(keeping, 2).state_dict(), keeping, None, 0)[1].new == (name,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 3}, r"blocks\.2\."),
        ({"caption_channels": 24}, r"y_embedder\.y_proj\.fc1\.weight"),
        ({"learn_sigma": False}, r"final_layer\.linear"),
        ({"qk_norm": True}, r"q_norm"),
    ],
)
def test_weights_of_another_shape_are_refused_with_tensors_named(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    other = dataclasses.replace(PIXART, **changes)  # type: ignore[arg-type]  # names and values are checked by it
    with pytest.raises(UserError, match=said):
        hand_over(written(tmp_path, PIXART), drawn(other, 2).state_dict(), other, None, 0)


@pytest.mark.parametrize("config", [PIXART, DIT])
def test_weights_of_another_number_of_heads_are_refused_though_every_shape_fits(tmp_path: Path, config: Config) -> None:
    other = dataclasses.replace(config, heads=4)
    with pytest.raises(UserError, match="has 2 heads, the model 4"):
        hand_over(written(tmp_path, config), drawn(other, 2).state_dict(), other, None, 0)


def test_a_pixart_does_not_become_a_dit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a DiT is trained on classes"):
        hand_over(written(tmp_path, PIXART), drawn(DIT, 2).state_dict(), DIT, None, 0)


def test_a_run_directory_gives_its_averaged_weights_unless_asked_for_the_raw_ones(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for kind in ("ema", "raw"):
        written(tmp_path, PIXART, "align").rename(tmp_path / "weights" / f"{kind}.safetensors")
        start = Start.of(tmp_path, kind)
        assert start.path.name == f"{kind}.safetensors"
        assert (start.config, start.stage) == (PIXART, "align")
    with pytest.raises(UserError, match="no such file"):
        Start.of(tmp_path / "weights", "ema")


def test_options_without_a_flag_are_kept_from_the_weights(tmp_path: Path) -> None:
    source = dataclasses.replace(PIXART, qk_norm=True, null_caption="buffer", text_tokens=9)
    start = Start.of(written(tmp_path, source), "ema")
    assert start.inherited(PIXART) == dataclasses.replace(PIXART, qk_norm=True)
    keeping = dataclasses.replace(PIXART, null_caption="buffer")
    assert start.inherited(keeping) == source
    assert Start.of(written(tmp_path, DIT), "ema").inherited(PIXART) == PIXART


def test_each_stage_starts_from_the_one_before_it_and_no_other(tmp_path: Path) -> None:
    assert Start.of(written(tmp_path, DIT), "ema").stage == "pixel"  # an official DiT says nothing
    for stage, source in (("align", "pixel"), ("align", "align"), ("aesthetic-1024", "aesthetic-512"), ("align", "")):
        STAGES[stage].check_start(source, "w")
    for stage, source in (("pixel", "align"), ("aesthetic-1024", "align"), ("aesthetic-256", "pixel")):
        with pytest.raises(UserError, match=f"w: weights of stage {source}, and stage {stage} starts from"):
            STAGES[stage].check_start(source, "w")


def test_another_objective_or_another_vae_is_said(tmp_path: Path) -> None:
    facts = Facts(0.18215, 0.0, 4, 8, 16, 8)
    report = hand_over(written(tmp_path, PIXART), drawn(PIXART, 2).state_dict(), PIXART, None, 0)[1]
    assert report.changes(ObjectiveConfig(), facts) == []
    changed = report.changes(ObjectiveConfig("v"), dataclasses.replace(facts, scaling_factor=0.13, shift_factor=0.1))
    assert "prediction='v'" in changed[0]
    assert "scaled by 0.18215, now by 0.13" in changed[1]
    assert "shifted by 0, now by 0.1" in changed[2]
