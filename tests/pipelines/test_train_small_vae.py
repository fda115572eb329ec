from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from pipelines.train_small import main
from schemas.errors import UserError

TRIAL = ["--steps", "2", "--card-scenes", "1"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_the_same_command_gives_the_same_autoencoder_and_a_card(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["vae", "--out", str(tmp_path / name), *TRIAL]) == 0
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert AutoencoderKL.from_pretrained(tmp_path / "one").config.latent_channels == 4
    assert "| 128 |" in (tmp_path / "one" / "README.md").read_text(encoding="utf-8")


def test_a_folder_for_work_is_a_llavas_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Leave it out"):
        main(["vae", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *TRIAL])
