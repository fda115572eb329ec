import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline
from PIL import Image
from safetensors.torch import load_file

from curation.demo.models import make_t5, make_vae
from pipelines import sample, train
from pipelines.convert import main
from schemas.errors import ExitCode, UserError
from training.diffusion.config import ObjectiveConfig, to_metadata
from training.models.config import DIT_SIZES, DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.official import NULL_CAPTION, POSITIONS, to_official
from training.models.pixart import PixArt
from training.weights.files import load_dit_weights, load_weights, save_weights
from training.weights.public_checkpoints import load_official, save_official

CONFIG = PixArtConfig(depth=2, hidden=48, heads=4, caption_channels=64, position_base=8)
DIT = DitConfig(depth=2, hidden=48, heads=4, classes=3, position_base=8)
METADATA = {"images_seen": "512", "kind": "ema", "vae_scaling_factor": "0.18215", "vae_shift_factor": "0.0"}

Convert = Callable[..., Path]


def drawn(config: PixArtConfig | DitConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = PixArt(config) if isinstance(config, PixArtConfig) else DiT(config)
    return {name: torch.randn_like(tensor) * 0.1 for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with t5/, vae/, pixart.safetensors, sigma.safetensors, pixart.pth and dit.pt."""
    root = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    make_t5(root / "t5")
    make_vae(root / "vae")
    save_weights(root / "pixart.safetensors", drawn(CONFIG), CONFIG, METADATA)
    save_official(root / "pixart.pth", to_official(drawn(CONFIG), CONFIG)[0] | {NULL_CAPTION: torch.ones(120, 64)})
    torch.save(to_official(drawn(DIT), DIT)[0], root / "dit.pt")
    return root


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    def run(source: str, to: str, path: Path, *arguments: str, out: str = "out") -> Path:
        given = ["--from", source, "--to", to, "--in", str(path), "--out", str(tmp_path / out), *arguments]
        assert main(given) == ExitCode.OK
        return tmp_path / out

    return run


def same(path: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = load_weights(path)[1]
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("change", "pipeline"),
    [
        ({}, PixArtAlphaPipeline),
        ({"position_base": 64, "position_scale": 2.0, "micro_conditions": True}, PixArtAlphaPipeline),
        ({"position_base": 16, "position_scale": 0.5, "text_tokens": 300}, PixArtSigmaPipeline),
    ],
    ids=["alpha", "alpha-1024-MS", "sigma-256"],
)
def test_diffusers_draws_the_same_picture_from_the_directory_as_we_do_from_the_file(
    world: Path, convert: Convert, tmp_path: Path, change: dict[str, Any], pipeline: Any
) -> None:
    config = dataclasses.replace(CONFIG, **change)
    save_weights(tmp_path / "w.safetensors", drawn(config), config, METADATA)
    parts = ["--t5", f"{world}/t5", "--vae", f"{world}/vae"]
    out = convert("latentmill", "diffusers", tmp_path / "w.safetensors", *parts)
    opened = pipeline.from_pretrained(out)
    opened.set_progress_bar_config(disable=True)
    prompt = "a red barn by a narrow river"
    theirs = opened(
        prompt,
        num_inference_steps=6,
        guidance_scale=4.5,
        height=48,
        width=64,
        use_resolution_binning=False,  # our sizes are drawn as asked
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        clean_caption=False,
    ).images[0]
    given = ["--weights", f"{tmp_path}/w.safetensors", *parts, "--device", "cpu", "--out", f"{tmp_path}/pictures"]
    assert sample.main([*given, "--prompts", prompt, "--steps", "6", "--seed", "3", "--size", "48x64"]) == ExitCode.OK
    ours = np.asarray(Image.open(tmp_path / "pictures/0000.png")).astype(int)
    assert ours.std() > 10
    assert np.abs(ours - (theirs * 255).round().astype(int)).max() <= 1


def test_what_a_model_was_trained_to_predict_goes_along(
    world: Path, convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = METADATA | to_metadata(ObjectiveConfig(prediction="v", zero_terminal_snr=True))
    save_weights(tmp_path / "v.safetensors", drawn(CONFIG), CONFIG, metadata)
    for weights, prediction in (
        (tmp_path / "v.safetensors", "v_prediction"),
        (world / "pixart.safetensors", "epsilon"),
    ):
        folder = convert("latentmill", "diffusers", weights, out=prediction)
        told = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        assert told["prediction_type"] == prediction
    capsys.readouterr()
    convert("latentmill", "official", tmp_path / "v.safetensors", out="v.pth")
    assert "trained for v, which a .pth cannot say" in capsys.readouterr().out


def test_a_directory_without_t5_and_vae_opens_with_those_of_the_caller(
    world: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["--t5", f"{world}/t5", "--vae", f"{world}/vae"]
    whole = PixArtAlphaPipeline.from_pretrained(
        convert("latentmill", "diffusers", world / "pixart.safetensors", *parts)
    )
    bare = convert("latentmill", "diffusers", world / "pixart.safetensors", out="bare")
    assert "note: no VAE in it" in capsys.readouterr().out
    assert sorted(path.name for path in bare.iterdir()) == ["model_index.json", "scheduler", "transformer"]
    lent = {name: getattr(whole, name) for name in ("text_encoder", "tokenizer", "vae")}
    pictures = []
    for opened in (whole, PixArtAlphaPipeline.from_pretrained(bare, **lent)):
        opened.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        given = {"height": 32, "width": 32, "use_resolution_binning": False, "output_type": "np"}
        pictures.append(
            opened("a bird", num_inference_steps=2, generator=generator, clean_caption=False, **given).images
        )
    assert np.array_equal(*pictures)


def test_weights_come_back_from_every_kind_of_file(world: Path, convert: Convert) -> None:
    expected = drawn(CONFIG)
    pth = convert("latentmill", "official", world / "pixart.safetensors", out="a.pth")
    assert same(convert("official", "latentmill", pth, "--heads", "4", out="a.safetensors"), expected)
    pipeline = convert("official", "diffusers", pth, "--heads", "4", out="b")
    assert same(convert("diffusers", "latentmill", pipeline, out="b.safetensors"), expected)
    transformer = convert("diffusers", "official", pipeline / "transformer", out="c.pth")
    assert same(convert("official", "latentmill", transformer, "--heads", "4", out="c.safetensors"), expected)


def test_what_is_dropped_or_supposed_is_said(world: Path, convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    out = convert("official", "latentmill", world / "pixart.pth", "--heads", "4")
    printed = capsys.readouterr().out
    assert f"note: {NULL_CAPTION} dropped" in printed
    assert f"note: {POSITIONS} dropped: it is computed, for 8 x 8 tokens and scale 1" in printed
    assert "note: latents scaled by 0.18215 are supposed" in printed
    config, _, metadata = load_weights(out)
    assert config == CONFIG
    assert metadata == METADATA | {"images_seen": "0", "kind": "raw"}


def test_the_null_caption_survives_if_it_is_kept(world: Path, convert: Convert) -> None:
    kept = convert("official", "latentmill", world / "pixart.pth", "--heads", "4", "--keep-null", out="kept")
    back = load_official(convert("latentmill", "official", kept, out="back.pth"))
    first = load_official(world / "pixart.pth")
    assert back.keys() == first.keys()
    assert all(torch.equal(back[name], first[name]) for name in first)


def test_a_dit_comes_in_and_goes_out(world: Path, convert: Convert) -> None:
    out = convert("official", "latentmill", world / "dit.pt", "--heads", "4", out="dit.safetensors")
    config, state, _ = load_dit_weights(out)
    assert config == DIT
    assert all(torch.equal(state[name], tensor) for name, tensor in drawn(DIT).items())
    back = load_official(convert("latentmill", "official", out, out="dit.pth"))
    assert back.keys() == load_official(world / "dit.pt").keys()


@pytest.mark.parametrize("shared", ["first-block", "fresh"])
def test_a_reparameterised_dit_is_what_training_starts_from(
    write_features: Callable[..., Any],
    convert: Convert,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shared: str,
) -> None:
    features = write_features(buckets={(64, 64): 8}, dim=32, max_tokens=12)
    size = DIT_SIZES["tiny/2"]
    config = DitConfig(depth=size.depth, hidden=size.hidden, heads=size.heads, position_base=4)
    torch.save(to_official(drawn(config), config)[0], tmp_path / "dit.pt")
    stage = ["--reparameterise", shared, "--caption-channels", "32", "--text-tokens", "12"]
    start = convert("official", "latentmill", tmp_path / "dit.pt", *stage, out="start.safetensors")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:8].strip().isdecimal()]
    output = {int(row[0]): float(row[1]) for row in rows}
    assert list(output) == [0, 250, 500, 750, 999]
    assert output[500] < 1e-5 < 1e-3 < min(output[t] for t in (0, 250, 750, 999))
    data = ["--latents", str(features.latents), "--text", str(features.text), "--out", f"{tmp_path}/run"]
    recipe = ["--model", "tiny/2", "--steps", "1", "--global-batch", "8", "--lr", "1e-12", "--device", "cpu"]
    assert train.main([*data, *recipe, "--init-from", str(start)]) == ExitCode.OK
    begun, ended = load_file(start), load_file(tmp_path / "run/weights/raw.safetensors")
    assert begun.keys() == ended.keys()
    assert all(torch.allclose(begun[name], ended[name], atol=1e-6) for name in begun)


def test_a_dit_in_our_own_file_becomes_the_baseline_of_the_ablation_too(world: Path, convert: Convert) -> None:
    dit = convert("official", "latentmill", world / "dit.pt", "--heads", "4", out="dit.safetensors")
    stage = ["--reparameterise", "fresh", "--without-class", "null-class", "--caption-channels", "64"]
    out = convert("latentmill", "latentmill", dit, *stage, "--modulation", "per-block")
    config, state, _ = load_weights(out)
    assert config.modulation == "per-block"
    assert torch.equal(state["pooled_embedder.bias"], drawn(DIT)["y_embedder.embedding_table.weight"][3])


def test_each_mistake_is_told_in_one_line(world: Path, convert: Convert, tmp_path: Path) -> None:
    pixart, pth, dit = world / "pixart.safetensors", world / "pixart.pth", world / "dit.pt"
    (tmp_path / "there").touch()
    mistakes: list[tuple[str, tuple[Any, ...], str]] = [
        ("exists already", ("latentmill", "official", pixart), "there"),
        ("changes nothing", ("latentmill", "latentmill", pixart), "out"),
        ("no such file", ("official", "latentmill", tmp_path / "none"), "out"),
        ("no such weights file", ("latentmill", "official", tmp_path / "none"), "out"),
        ("no PixArt of diffusers", ("diffusers", "official", tmp_path / "none"), "out"),
        ("no released size", ("official", "latentmill", pth), "out"),
        ("made for 128 px", ("official", "latentmill", pth, "--heads", "4", "--image-px", "256"), "out"),
        ("no multiple of 16", ("official", "latentmill", pth, "--heads", "4", "--image-px", "100"), "out"),
        ("--heads -4 is not above 0", ("official", "latentmill", pth, "--heads", "-4"), "out"),
        ("--heads means nothing", ("latentmill", "official", pixart, "--heads", "4"), "out"),
        ("--vae-scaling means nothing", ("latentmill", "official", pixart, "--vae-scaling", "1"), "out"),
        ("--t5 means nothing", ("latentmill", "official", pixart, "--t5", "t5"), "out"),
        ("--timestep means nothing", ("latentmill", "official", pixart, "--timestep", "400"), "out"),
        ("a PixArt already", ("latentmill", "latentmill", pixart, "--reparameterise", "fresh"), "out"),
        ("take no DiT", ("official", "diffusers", dit, "--heads", "4"), "out"),
        (
            "timestep 1000",
            ("official", "latentmill", dit, "--heads", "4", "--reparameterise", "fresh", "--timestep", "1000"),
            "out",
        ),
        ("no such directory", ("latentmill", "diffusers", pixart, "--t5", "/nowhere"), "out"),
        ("no AutoencoderKL", ("latentmill", "diffusers", pixart, "--vae", "/nowhere"), "out"),
    ]
    for words, given, out in mistakes:
        with pytest.raises(UserError, match=words) as caught:
            convert(*given, out=out)
        assert "\n" not in str(caught.value), words
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys, pipelines.convert as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--reparameterise" in done.stdout
