from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from standin_inception import StandinInception
from torch import Tensor, nn

from schemas.errors import UserError
from training.checkpoints.folder import file_digest
from training.evaluation.features import computed, label, open_features, weights_digest

CPU = torch.device("cpu")
PICTURES = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 255


class _Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean(dim=(2, 3), keepdim=True)


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_the_inception_file_is_known_and_its_resizing_is_passed_by(tmp_path: Path) -> None:
    path = scripted(StandinInception(), tmp_path / "inception.pt")
    features = open_features(str(path), CPU)
    assert (features.is_inception, features.input_px, features.digest) == (True, 299, file_digest(path))
    large = torch.full((2, 3, 299, 299), 192.0)
    assert torch.allclose(features(large), torch.full((2, 2048), 0.5))
    assert features(PICTURES).min() >= 1000  # through its own resizing, and features are asked for
    assert label(features, 2048) == "FID"


def test_any_other_file_is_called_with_the_pictures_and_never_called_fid(tmp_path: Path) -> None:
    features = open_features(str(scripted(_Plain(), tmp_path / "plain.pt")), CPU, input_px=20)
    assert torch.allclose(features(PICTURES), 2 * PICTURES.mean(dim=(2, 3)))
    assert features.input_px == 20
    assert label(features, 2048) == "Fréchet distance (plain.pt)"


def test_a_python_function_gives_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_features.py").write_text(
        "import torch\n\n\ndef colour():\n    return lambda x: x.mean(dim=(2, 3))\n\n\n"
        "def network():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1200, 5))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    colour, network = (open_features(f"own_features:{name}", CPU) for name in ("colour", "network"))
    assert torch.equal(colour(PICTURES), PICTURES.mean(dim=(2, 3)))
    assert network(PICTURES).shape == (3, 5)
    assert colour.digest == file_digest(tmp_path / "own_features.py") != network.digest
    with pytest.raises(UserError, match="own_features:nothing: cannot be imported"):
        open_features("own_features:nothing", CPU)
    with pytest.raises(UserError, match="os:getpid: returns int, no network"):
        open_features("os:getpid", CPU)


@pytest.mark.parametrize(("kind", "width"), [("vae-latents", 4 * 16), ("vae-encoder", 8)])
def test_a_vae_gives_features_without_foreign_weights(tmp_path: Path, kind: str, width: int) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    vae.save_pretrained(tmp_path / "vae")
    features = open_features(f"{kind}:{tmp_path / 'vae'}", CPU)
    found = features(PICTURES)
    assert found.shape == (3, width)
    assert features.digest == weights_digest(vae)
    assert label(features, width) == f"Fréchet distance ({kind}:vae)"
    if kind == "vae-latents":
        with torch.no_grad():
            mean = vae.encode(PICTURES / 127.5 - 1).latent_dist.mean  # [3, 4, 10, 10]
        assert torch.allclose(found.view(3, 4, 4, 4)[:, :, 0, 0], mean[:, :, :3, :3].mean(dim=(2, 3)), atol=1e-6)


def test_digests_tell_weights_apart() -> None:
    one, other = _Plain(), _Plain()
    assert weights_digest(one) == weights_digest(other)
    with torch.no_grad():
        other.scale += 1
    assert weights_digest(one) != weights_digest(other)


def test_what_is_no_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        open_features(str(tmp_path / "a.pt"), CPU)
    (tmp_path / "a.pt").write_bytes(b"no zip")
    with pytest.raises(UserError, match="no TorchScript"):
        open_features(str(tmp_path / "a.pt"), CPU)
    with pytest.raises(UserError, match="no AutoencoderKL"):
        open_features(f"vae-latents:{tmp_path}", CPU)
    with pytest.raises(UserError, match=r"gives \(3, 3, 20, 20\)"):
        open_features(str(scripted(nn.Identity(), tmp_path / "b.pt")), CPU)(PICTURES)


def test_a_feature_that_is_not_finite_names_its_picture(tmp_path: Path) -> None:
    features = open_features(str(scripted(_Plain(), tmp_path / "plain.pt")), CPU)
    bad = PICTURES.clone()
    bad[1] = float("nan")
    with pytest.raises(UserError, match="features of picture 4 of samples"):
        list(computed(features, iter([PICTURES, bad]), CPU, "samples"))
    assert np.concatenate(list(computed(features, iter([PICTURES] * 2), CPU, "samples"))).shape == (6, 3)


def test_pictures_that_a_network_does_not_take_are_told_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrow_features.py").write_text("import torch\ndef narrow():\n    return torch.nn.Conv2d(3, 2, 99)\n")
    monkeypatch.syspath_prepend(tmp_path)
    features = open_features("narrow_features:narrow", CPU)
    with pytest.raises(UserError, match=r"narrow_features:narrow: does not take the samples, \d+x\d+ px \(.*--input"):
        list(computed(features, iter([PICTURES]), CPU, "the samples"))
