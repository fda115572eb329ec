from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import UserError
from training.data.manifest import Manifest, open_manifest, open_mixture
from training.data.mixture import Source
from training.data.prefetch import Prefetcher
from training.data.reader import Reader
from training.diffusion.config import ObjectiveConfig
from training.evaluation.loss import HeldOut, HeldOutLoss, grid, held_out_batches, held_out_rows, summarised
from training.models.config import DitConfig, PixArtConfig
from training.network import Network, network_of

CPU = torch.device("cpu")
MODEL = PixArtConfig(depth=1, hidden=32, heads=2, caption_channels=32, text_tokens=12, position_base=4)
EPSILON = ObjectiveConfig()


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 5})
    return open_manifest(str(made.latents), str(made.text))


def built(network: Network) -> torch.nn.Module:
    torch.manual_seed(0)
    model = network.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def measured(manifest: Manifest, rows: np.ndarray, batch: int = 4, **changes: Any) -> HeldOutLoss:
    network = network_of(changes.pop("model", MODEL))
    objective = changes.pop("objective", EPSILON)
    measure = HeldOut(network, objective, manifest.facts, grid(objective, changes.pop("timesteps", 3)), **changes)
    read = Prefetcher(manifest, Reader(manifest), held_out_batches(manifest, rows, batch), 0, 1, CPU)
    try:
        return measure.measure(built(network), read)
    finally:
        read.close()


def test_the_loss_does_not_depend_on_how_samples_are_put_into_batches(manifest: Manifest) -> None:
    rows = held_out_rows(manifest, 0, 0)
    one, other = measured(manifest, rows, batch=1), measured(manifest, rows, batch=9)
    assert one.samples == other.samples == 14
    for name in ("mse", "mse_error", "vb", "loss"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4)
    for a, b in zip(one.by_timestep, other.by_timestep, strict=True):
        assert (a.timestep, a.mse) == (b.timestep, pytest.approx(b.mse, rel=1e-4))


def test_a_sample_has_the_same_loss_whichever_others_are_there(manifest: Manifest) -> None:
    rows = held_out_rows(manifest, 0, 0)
    alone = [measured(manifest, rows[i : i + 1]).mse for i in range(len(rows))]
    whole = measured(manifest, rows)
    assert whole.mse == pytest.approx(np.mean(alone), rel=1e-4)
    assert whole.mse_error == pytest.approx(np.std(alone, ddof=1) / 14**0.5, rel=1e-3)


def test_another_seed_is_other_noise_and_timesteps_are_noised_apart(manifest: Manifest) -> None:
    rows = held_out_rows(manifest, 0, 0)
    assert measured(manifest, rows) == measured(manifest, rows)
    assert measured(manifest, rows).mse != measured(manifest, rows, seed=1).mse


def test_errors_are_over_samples_not_over_timesteps() -> None:
    """A sample's timesteps are seen by one model on one picture, so they are no independent draws."""
    mse = np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])  # [K, N]
    found = summarised(np.stack([mse + 1, mse, np.ones_like(mse)], axis=1), [100, 300], 0)
    assert (found.mse, found.vb, found.loss) == (3.5, 1.0, 4.5)
    assert found.mse_error == pytest.approx(2 / 3**0.5)
    assert [(at.timestep, at.mse, at.mse_error) for at in found.by_timestep] == [
        (100, 3.0, pytest.approx(2 / 3**0.5)),
        (300, 4.0, pytest.approx(2 / 3**0.5)),
    ]
    assert summarised(np.ones((1, 3, 1)), [5], 0).mse_error is None


def test_timesteps_lie_in_the_middle_of_equal_parts() -> None:
    assert grid(EPSILON, 10).tolist() == [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]
    flow = grid(ObjectiveConfig(prediction="flow", time_density="logit-normal", time_shift=3.0), 4)
    assert flow.tolist() == [125.0, 375.0, 625.0, 875.0]
    assert flow.dtype == torch.float32
    with pytest.raises(UserError, match="do not fit"):
        grid(EPSILON, 1001)


def test_the_samples_are_chosen_by_their_names(manifest: Manifest, write_features: Callable[..., Any]) -> None:
    some = held_out_rows(manifest, 5, seed=3)
    assert len(set(some.tolist())) == 5
    assert some.tolist() == held_out_rows(manifest, 5, seed=3).tolist() != held_out_rows(manifest, 5, seed=4).tolist()
    assert set(held_out_rows(manifest, 3, seed=3).tolist()) < set(some.tolist())
    apart = held_out_rows(manifest, 0, 3, share=0.5)
    assert 0 < len(apart) < 14
    assert set(held_out_rows(manifest, len(apart), 3).tolist()) == set(apart.tolist())
    with pytest.raises(UserError, match="holds out none"):
        held_out_rows(manifest, 0, 3, share=1e-9)
    made = write_features(buckets={(64, 64): 9, (32, 96): 5}, folder="fewer", without_text=(0,), without_latents=(0,))
    fewer = open_manifest(str(made.latents), str(made.text))
    names = {manifest.name(row) for row in held_out_rows(manifest, 14, 3)} - {manifest.name(0)}
    assert {fewer.name(row) for row in held_out_rows(fewer, 13, 3)} == names


def test_a_model_of_classes_and_one_of_flow_are_measured_too(write_features: Callable[..., Any]) -> None:
    made = write_features(buckets={(64, 64): 6}, classes=5)
    labelled = open_mixture([Source("", str(made.latents), ())])
    dit = DitConfig(depth=1, hidden=32, heads=2, classes=5, position_base=4)
    assert measured(labelled, held_out_rows(labelled, 0, 0), model=dit).samples == 6
    texts = open_manifest(str(made.latents), str(made.text))
    flow = PixArtConfig(**{**MODEL_VALUES, "learn_sigma": False})
    found = measured(texts, held_out_rows(texts, 0, 0), model=flow, objective=ObjectiveConfig(prediction="flow"))
    assert found.vb == 0
    assert found.loss == found.mse


MODEL_VALUES = {"depth": 1, "hidden": 32, "heads": 2, "caption_channels": 32, "text_tokens": 12, "position_base": 4}


def test_a_damaged_sample_ends_the_measurement(write_features: Callable[..., Any]) -> None:
    made = write_features(buckets={(64, 64): 4})
    whole = open_manifest(str(made.latents), str(made.text))
    (tar,) = Path(made.latents).glob("*.tar")
    data = bytearray(tar.read_bytes())
    place = int(whole.latents.offset[2]) + 200
    data[place] ^= 0xFF
    tar.write_bytes(bytes(data))
    with pytest.raises(UserError, match="leave the sample out"):
        measured(whole, held_out_rows(whole, 0, 0))
