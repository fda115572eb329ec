import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curation.checkpoints import Checkpoint, resolve_checkpoint
from curation.compute import Compute
from curation.features.vae import VaeEncoder, describe_vae
from schemas.errors import UserError


@pytest.fixture
def edited(tiny: Any, tmp_path: Path) -> Any:
    """`edited(key=value)`: the tiny VAE with another configuration; None takes a key away."""

    def edit(**changes: Any) -> Checkpoint:
        for file in tiny.vae.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((tiny.vae / "config.json").read_text()) | changes
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return resolve_checkpoint(str(tmp_path), None)

    return edit


def pictures(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)


def test_what_an_old_configuration_leaves_out_has_the_librarys_default(edited: Any) -> None:
    vae = describe_vae(edited(scaling_factor=None, shift_factor=None, force_upcast=None))
    assert (vae.scaling_factor, vae.shift_factor, vae.overflows_in_fp16) == (0.18215, 0.0, False)


def test_a_shift_and_an_overflow_are_taken_from_the_configuration(edited: Any) -> None:
    vae = describe_vae(edited(scaling_factor=0.3611, shift_factor=0.1159, force_upcast=True))
    assert (vae.scaling_factor, vae.shift_factor, vae.overflows_in_fp16) == (0.3611, 0.1159, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel, not one of AutoencoderKL"),
        ({"in_channels": 1}, "takes 1 channels, not RGB"),
        ({"latents_mean": [0.0] * 4}, "normalises latents by channel"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(edited: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        describe_vae(edited(**changes))
    assert "\n" not in str(error.value)


def test_a_damaged_weights_file_is_refused_in_one_line(edited: Any, tmp_path: Path) -> None:
    checkpoint = edited()
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded as AutoencoderKL") as error:
        VaeEncoder(describe_vae(checkpoint), Compute())
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_never_made_up(edited: Any) -> None:
    checkpoint = edited(layers_per_block=2)
    with pytest.raises(UserError, match="weights missing for decoder"):
        VaeEncoder(describe_vae(checkpoint), Compute())


def test_at_one_batch_size_a_picture_gets_the_same_bits_whatever_its_place_and_neighbours(tiny: Any) -> None:
    encoder = VaeEncoder(describe_vae(resolve_checkpoint(str(tiny.vae), None)), Compute())
    batch = pictures(5)
    expected = encoder.encode(batch)
    order = [3, 0, 4, 1, 2]
    np.testing.assert_array_equal(encoder.encode(batch[order]), expected[order])
    filled = np.stack([batch[2]] * 5)
    np.testing.assert_array_equal(encoder.encode(filled)[1], expected[2])


def test_the_number_of_threads_outside_changes_no_bit_and_is_left_as_it_was(tiny: Any) -> None:
    encoder = VaeEncoder(describe_vae(resolve_checkpoint(str(tiny.vae), None)), Compute())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = encoder.encode(pictures(2))
        torch.set_num_threads(2)
        np.testing.assert_array_equal(encoder.encode(pictures(2)), expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_autocast_around_the_stage_does_not_reach_the_vae(tiny: Any) -> None:
    encoder = VaeEncoder(describe_vae(resolve_checkpoint(str(tiny.vae), None)), Compute())
    batch = pictures(1)[:, :64, :64]
    expected = encoder.encode(batch)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(encoder.encode(batch), expected)


def test_bfloat16_is_near_float32(tiny: Any) -> None:
    vae = describe_vae(resolve_checkpoint(str(tiny.vae), None))
    batch = pictures(1)[:, :32, :32]
    exact = VaeEncoder(vae, Compute()).encode(batch)
    coarse = VaeEncoder(vae, Compute(dtype="bfloat16")).encode(batch)
    assert np.abs(coarse - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "quantum"])
def test_a_device_that_is_not_there_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}: not usable here") as error:
        Compute(device=device).require_device()
    assert "\n" not in str(error.value)
