import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel
from torch import Tensor

from schemas.errors import StorageError, UserError
from training.diffusion.config import ObjectiveConfig
from training.diffusion.samplers import dpm_scheduler
from training.models.config import PixArtConfig
from training.models.diffusers_keys import for_diffusers, from_diffusers
from training.models.official import Choices, from_official, to_official
from training.models.pixart import PixArt
from training.weights.public_checkpoints import load_diffusers, load_official, save_official, save_pipeline

CONFIG = PixArtConfig(depth=2, hidden=48, heads=4, caption_channels=20, position_base=16)

Save = Callable[..., Path]


@pytest.fixture
def model() -> PixArt:
    """Every parameter random: at its own initialisation the output and all of the text path are 0."""
    torch.manual_seed(0)
    model = PixArt(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def save(tmp_path: Path, model: PixArt) -> Save:
    def run(name: str = "pipeline", config: PixArtConfig = CONFIG, **changed: object) -> Path:
        given: dict[str, object] = {"vae_scaling": 0.18215, "vae_shift": 0.0, "t5": None, "vae": None}
        save_pipeline(tmp_path / name, model.state_dict(), config, **(given | changed))
        return tmp_path / name

    return run


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / (1e-3 + expected.norm())).item()


@pytest.mark.parametrize("change", [{}, {"micro_conditions": True, "position_scale": 2.0}, {"position_scale": 0.5}])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (12, 6)])
def test_a_converted_checkpoint_gives_the_output_and_the_gradients_of_diffusers(
    tmp_path: Path, change: dict[str, object], rows: int, columns: int
) -> None:
    """An official .pth to ours to a directory of diffusers, opened by diffusers itself, and that back to ours."""
    config = dataclasses.replace(CONFIG, **change)
    torch.manual_seed(0)
    drawn = {name: torch.randn_like(tensor) * 0.2 for name, tensor in PixArt(config).state_dict().items()}
    save_official(tmp_path / "official.pth", to_official(drawn, config)[0])
    ours = from_official(load_official(tmp_path / "official.pth"), Choices(heads=4))
    assert ours.config == config
    save_pipeline(tmp_path / "out", ours.state, config, vae_scaling=0.18215, vae_shift=0, t5=None, vae=None)
    theirs = PixArtTransformer2DModel.from_pretrained(tmp_path / "out" / "transformer")
    found = load_diffusers(tmp_path / "out")
    again = from_diffusers(found.state, found.config, Choices(text_tokens=found.text_tokens))
    assert again.config == config
    model = PixArt(again.config)
    model.load_state_dict(again.state)

    latents, timesteps = torch.randn(3, 4, rows, columns), torch.tensor([0, 321, 999])
    text, lengths = torch.randn(3, 9, 20), torch.tensor([1, 9, 4])
    sizes = torch.tensor([[512.0, 512.0, 1.0], [300.0, 480.0, 0.6], [1024.0, 333.0, 3.0]])
    for dtype, bound in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        expected = theirs.to(dtype)(
            latents.to(dtype),
            encoder_hidden_states=text.to(dtype),
            timestep=timesteps,
            added_cond_kwargs={"resolution": sizes[:, :2], "aspect_ratio": sizes[:, 2:]},
            encoder_attention_mask=(torch.arange(9) < lengths[:, None]).to(dtype),
        ).sample
        output = model.to(dtype)(latents.to(dtype), timesteps, text.to(dtype), lengths, sizes)
        assert relative_error(output, expected) < bound
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    gradients = for_diffusers(config, gradients)[1]
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        assert relative_error(gradients[name], parameter.grad) < 1e-9, name


@pytest.mark.parametrize("objective", [None, ObjectiveConfig("v", zero_terminal_snr=True)], ids=["default", "v"])
def test_the_scheduler_is_that_of_our_own_sampling(save: Save, objective: ObjectiveConfig | None) -> None:
    found = DPMSolverMultistepScheduler.from_pretrained(save(objective=objective) / "scheduler")
    own = dpm_scheduler(objective or ObjectiveConfig())
    assert {k: v for k, v in found.config.items() if k[0] != "_"} == {
        k: v for k, v in own.config.items() if k[0] != "_"
    }


def test_a_transformer_in_several_files_is_read_whole(tmp_path: Path, model: PixArt) -> None:
    theirs = PixArtTransformer2DModel(**json.loads(json.dumps(_diffusers_config())))
    theirs.load_state_dict(for_diffusers(CONFIG, model.state_dict())[1])
    theirs.save_pretrained(tmp_path / "alone", max_shard_size="100KB")
    assert len(list((tmp_path / "alone").glob("*.safetensors"))) > 1
    found = load_diffusers(tmp_path / "alone")
    assert (found.text_tokens, found.vae_scaling) == (None, None)
    state = from_diffusers(found.state, found.config, Choices()).state
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    next((tmp_path / "alone").glob("*-00001-of*.safetensors")).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_diffusers(tmp_path / "alone")


def _diffusers_config() -> dict[str, object]:
    from training.models.diffusers_keys import diffusers_config

    return diffusers_config(CONFIG)


def test_a_pth_may_hold_the_state_bare_or_beside_other_things(tmp_path: Path, model: PixArt) -> None:
    raw = dict(model.state_dict())
    averaged = {name: tensor + 1 for name, tensor in raw.items()}
    torch.save(raw, tmp_path / "bare.pt")
    torch.save({"state_dict": raw, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "trainer.pth")
    for name, ema, expected in (("bare.pt", False, raw), ("trainer.pth", False, raw), ("trainer.pth", True, averaged)):
        found = load_official(tmp_path / name, ema=ema)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


class Runs:
    """What a hostile file may hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran",))


def test_a_pth_that_would_run_code_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Runs()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Runs()))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match="no file of weights alone") as caught:
            load_official(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_pth_that_holds_no_weights_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not found")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"state_dict": {"a": 3}}, tmp_path / "numbers.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "good.pth")
    cases = [("none", "no such file"), ("text", "weights alone"), ("empty", "weights alone")]
    cases += [("numbers", "no state dict"), ("list", "no state dict")]
    for name, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            load_official(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no state_dict_ema"):
        load_official(tmp_path / "good.pth", ema=True)


def test_what_was_written_does_not_drag_the_storage_of_views_along(tmp_path: Path) -> None:
    save_official(tmp_path / "w.pth", {"a": torch.zeros(1_000_000)[:3]})
    assert (tmp_path / "w.pth").stat().st_size < 10_000


def test_a_disk_that_refuses_leaves_nothing_behind(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        save_official(tmp_path / "w.pth", {"a": torch.zeros(3)})
    with pytest.raises(StorageError, match="No space left"):
        save()
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_would_draw_wrong_pictures_is_not_written(save: Save, tmp_path: Path) -> None:
    vae, t5 = tmp_path / "vae", tmp_path / "t5"
    about = {"_class_name": "AutoencoderKL", "latent_channels": 4, "scaling_factor": 0.13025}
    cases: list[tuple[dict[str, object], dict[str, object], str]] = [
        ({}, {"vae_shift": 0.1}, "were shifted by 0.1"),
        ({}, {"vae": str(vae)}, "scales latents by 0.13025"),
        ({"latent_channels": 16}, {"vae": str(vae)}, "16 latent channels"),
        ({"_class_name": "AutoencoderTiny"}, {"vae": str(vae)}, "no AutoencoderKL"),
        ({}, {"t5": str(t5)}, "a T5 512 wide"),
    ]
    vae.mkdir()
    t5.mkdir()
    (vae / "diffusion_pytorch_model.safetensors").touch()
    (t5 / "config.json").write_text('{"model_type": "t5"}')
    for change, given, words in cases:
        (vae / "config.json").write_text(json.dumps(about | change))
        with pytest.raises(UserError, match=words) as caught:
            save(**given)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pipeline").exists()


def test_an_existing_directory_is_never_written_into(save: Save) -> None:
    save()
    with pytest.raises(UserError, match="exists already"):
        save()


def test_a_directory_without_a_pixart_is_told_in_one_line(tmp_path: Path, save: Save) -> None:
    with pytest.raises(UserError, match="no PixArt of diffusers there"):
        load_diffusers(tmp_path)
    damaged = save() / "transformer" / "diffusion_pytorch_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_diffusers(tmp_path / "pipeline")
    assert "\n" not in str(caught.value)
