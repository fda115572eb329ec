import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from schemas.errors import StorageError, UserError
from schemas.record import canonical_json
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.weights.files import holds_dit, load_dit_weights, load_model, load_weights, save_weights

CONFIG = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=20, position_scale=2.0)
METADATA = {"images_seen": "1024", "kind": "ema", "vae_scaling_factor": "0.18215", "vae_shift_factor": "0.0"}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return PixArt(CONFIG).state_dict()


def test_weights_come_back_as_they_were_saved(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights" / "ema.safetensors"
    save_weights(path, state, CONFIG, METADATA)
    config, tensors, metadata = load_weights(path)
    assert config == CONFIG
    assert metadata == METADATA
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert [p.name for p in path.parent.iterdir()] == ["ema.safetensors"]


def test_the_file_is_plain_safetensors_that_says_what_it_is(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_weights(tmp_path / "w.safetensors", state, CONFIG, METADATA)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        (header,) = file.metadata().values()
    assert header == canonical_json({"config": dataclasses.asdict(CONFIG), "metadata": METADATA})


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    contents = set()
    for turn in range(8):
        path = tmp_path / f"{turn}.safetensors"
        save_weights(path, dict(reversed(state.items())) if turn % 2 else state, CONFIG, METADATA)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_model_is_built_from_its_file_alone(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_weights(tmp_path / "w.safetensors", state, CONFIG, METADATA)
    model, metadata = load_model(tmp_path / "w.safetensors", torch.device("cpu"))
    assert metadata == METADATA
    assert not model.training
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 2, 20), torch.tensor([2]))
    expected = PixArt(CONFIG)
    expected.load_state_dict(state)
    assert torch.equal(model(*inputs), expected(*inputs))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, state, CONFIG, METADATA)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save_weights(path, {n: t + 1 for n, t in state.items()}, CONFIG, METADATA)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_that_sampling_needs_cannot_be_left_out(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="vae_shift_factor"):
        save_weights(tmp_path / "w.safetensors", state, CONFIG, {k: METADATA[k] for k in list(METADATA)[:3]})


def test_a_missing_damaged_or_foreign_file_is_told_in_one_line(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    damaged, foreign, misfit = (tmp_path / f"{name}.safetensors" for name in ("damaged", "foreign", "misfit"))
    save_weights(damaged, state, CONFIG, METADATA)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    save_file({"x": torch.zeros(1)}, foreign)
    save_weights(misfit, state, dataclasses.replace(CONFIG, depth=2), METADATA)
    cases = {
        "none.safetensors": "no such",
        "damaged": "not a readable",
        "foreign": "no weights file of this trainer",
        "misfit": "do not fit",
    }
    for path, words in zip((tmp_path / "none", damaged, foreign, misfit), cases.values(), strict=True):
        with pytest.raises(UserError, match=words) as caught:
            load_model(path, torch.device("cpu"))
        assert "\n" not in str(caught.value)


def test_a_configuration_with_an_unknown_option_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    header = {"config": {**dataclasses.asdict(CONFIG), "window": 7}, "metadata": METADATA}
    save_file(dict(state), tmp_path / "w.safetensors", {"latentmill": json.dumps(header)})
    with pytest.raises(UserError, match="window"):
        load_weights(tmp_path / "w.safetensors")


def test_a_file_whose_metadata_lacks_what_sampling_needs_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    header = {"config": dataclasses.asdict(CONFIG), "metadata": {**METADATA}}
    del header["metadata"]["vae_shift_factor"]
    save_file(dict(state), tmp_path / "w.safetensors", {"latentmill": json.dumps(header)})
    with pytest.raises(UserError, match="its metadata lacks vae_shift_factor"):
        load_weights(tmp_path / "w.safetensors")


def test_the_weights_of_a_dit_come_back_and_are_never_taken_for_a_pixart(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    config = DitConfig(depth=1, hidden=48, heads=4, classes=3)
    dit, pixart = tmp_path / "dit.safetensors", tmp_path / "pixart.safetensors"
    tensors = DiT(config).state_dict()
    save_weights(dit, tensors, config, METADATA)
    save_weights(pixart, state, CONFIG, METADATA)
    found, read, metadata = load_dit_weights(dit)
    assert (found, metadata) == (config, METADATA)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert holds_dit(dit)
    assert not holds_dit(pixart)
    with pytest.raises(UserError, match="holds a class-conditional DiT"):
        load_weights(dit)
    with pytest.raises(UserError, match="no weights file"):
        load_dit_weights(pixart)


def test_a_file_in_place_of_the_folder_is_told_in_one_line(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="weights cannot be written"):
        save_weights(tmp_path / "file" / "w.safetensors", state, CONFIG, METADATA)
