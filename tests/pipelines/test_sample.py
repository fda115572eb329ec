import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from drawing_models import CONFIG, write_drawing_models, write_kl, write_t5, write_weights
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.sample import main
from pipelines.sampling_arguments import SAMPLERS
from schemas.errors import ExitCode, UserError
from training.diffusion.config import ObjectiveConfig
from training.diffusion.samplers import DEFAULT_STEPS
from training.models.config import DitConfig

Sample = Callable[..., Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with run/, t5/ and vae/."""
    return write_drawing_models(tmp_path_factory.mktemp("world"))


@pytest.fixture
def sample(world: Path, tmp_path: Path) -> Sample:
    """Run the command with arguments on top of the usual ones; returns the directory of the pictures."""
    number = 0

    def run(*arguments: str, **other: str) -> Path:
        nonlocal number
        number += 1
        out = tmp_path / f"out{number}"
        places = {"run": f"{world}/run", "t5": f"{world}/t5", "vae": f"{world}/vae", "device": "cpu", "steps": "2"}
        places = {**places, **other, "out": str(out)}
        if "weights" in places:
            del places["run"]
        named = [part for name, value in places.items() if value for part in (f"--{name.replace('_', '-')}", value)]
        assert main([*named, *arguments]) == ExitCode.OK
        return out

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_run_gives_one_picture_a_prompt_and_a_grid(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    out = sample("--prompts", "a red fox", "a harbour in snow", "")
    assert sorted(p.name for p in out.iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png", "samples.json"]
    assert pixels(out / "0000.png").shape == (16, 16, 3)
    whole = pixels(out / "grid.png")
    assert whole.shape == (32, 32, 3)
    for i, (top, left) in enumerate([(0, 0), (0, 16), (16, 0)]):
        assert np.array_equal(whole[top : top + 16, left : left + 16], pixels(out / f"000{i}.png"))
    assert not whole[16:, 16:].any()
    printed = capsys.readouterr().out
    assert str(out) in printed
    assert "ema, after 512 images" in printed


def test_a_picture_says_what_it_was_made_from(sample: Sample) -> None:
    out = sample("--prompts", "a red fox", "neige à Noël", "--seed", "40")
    text = Image.open(out / "0001.png").text
    assert text == {"prompt": "neige à Noël", "seed": "41", "sampler": "dpm", "steps": "2", "guidance": "4.5"}


def test_pictures_repeat_and_do_not_depend_on_the_batch(sample: Sample) -> None:
    prompts = ["--prompts", "a red fox in snow", "a", "a harbour"]
    first = sample(*prompts)
    for other in (sample(*prompts), sample(*prompts, "--batch", "2"), sample(*prompts, "--batch", "1")):
        for name in ("0000.png", "0001.png", "0002.png"):
            difference = pixels(first / name).astype(int) - pixels(other / name).astype(int)
            assert np.abs(difference).max() <= 1
    seeded = sample(*prompts, "--seed", "7")
    assert not np.array_equal(pixels(seeded / "0000.png"), pixels(first / "0000.png"))


def test_the_same_command_again_has_nothing_to_do_until_something_changes(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures"
    line = ["--run", str(world / "run"), "--t5", str(world / "t5"), "--vae", str(world / "vae"), "--out", str(out)]
    line += ["--device", "cpu", "--steps", "2", "--prompts", "a fox"]

    def says_nothing_to_do(*more: str) -> bool:
        capsys.readouterr()
        assert main([*line, *more]) == ExitCode.OK
        return "nothing to do" in capsys.readouterr().out

    assert not says_nothing_to_do()
    before = (out / "0000.png").stat().st_mtime_ns
    assert says_nothing_to_do()
    assert (out / "0000.png").stat().st_mtime_ns == before
    assert not says_nothing_to_do("--seed", "9")
    (out / "0000.png").unlink()
    assert not says_nothing_to_do("--seed", "9")
    assert says_nothing_to_do("--seed", "9")


def test_the_samplers_are_those_there_are() -> None:
    assert set(SAMPLERS) == set(DEFAULT_STEPS)


def test_the_sampler_is_chosen_and_its_steps_are_its_own_unless_given(sample: Sample, tmp_path: Path) -> None:
    pictures = {name: pixels(sample("--prompts", "a fox", sampler=name) / "0000.png") for name in SAMPLERS[:3]}
    assert len({picture.tobytes() for picture in pictures.values()}) == 3
    write_weights(tmp_path / "sigma.safetensors", 0, "ema")
    out = sample("--prompts", "a fox", "--sampler", "ddim", weights=f"{tmp_path}/sigma.safetensors", steps="")
    assert Image.open(out / "0000.png").text["steps"] == "50"
    assert json.loads((out / "samples.json").read_text())["settings"]["sampler"] == "ddim"


def test_weights_are_sampled_by_the_objective_that_they_name(sample: Sample, tmp_path: Path) -> None:
    flow = replace(CONFIG, learn_sigma=False)
    write_weights(tmp_path / "flow.safetensors", 0, "ema", flow, ObjectiveConfig("flow", time_shift=3.0))
    write_weights(tmp_path / "v.safetensors", 0, "ema", CONFIG, ObjectiveConfig("v"))
    default = pixels(sample("--prompts", "a fox") / "0000.png")
    for name, sampler in (("flow", "euler"), ("flow", "dpm"), ("v", "ddim"), ("v", "dpm")):
        out = sample("--prompts", "a fox", weights=f"{tmp_path}/{name}.safetensors", sampler=sampler)
        assert not np.array_equal(pixels(out / "0000.png"), default)
    with pytest.raises(UserError, match="ddim is not for a model that predicts flow"):
        sample("--prompts", "a fox", weights=f"{tmp_path}/flow.safetensors", sampler="ddim", t5="/nowhere")


def test_ema_weights_are_used_unless_the_raw_ones_are_asked_for(sample: Sample, world: Path) -> None:
    prompt = ["--prompts", "a red fox"]
    default = pixels(sample(*prompt) / "0000.png")
    assert np.array_equal(default, pixels(sample(*prompt, "--ema") / "0000.png"))
    raw = pixels(sample(*prompt, "--no-ema") / "0000.png")
    assert not np.array_equal(default, raw)
    file = sample(*prompt, weights=f"{world}/run/weights/raw.safetensors")
    assert np.array_equal(pixels(file / "0000.png"), raw)


def test_prompts_come_from_a_file_one_a_line(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red fox\n\n  a harbour \n", encoding="utf-8")
    out = sample("--prompts-file", str(tmp_path / "prompts.txt"))
    assert Image.open(out / "0001.png").text["prompt"] == "a harbour"


def test_size_is_height_by_width_in_pixels(sample: Sample) -> None:
    assert pixels(sample("--prompts", "a", "--size", "8x24") / "0000.png").shape == (8, 24, 3)
    assert pixels(sample("--prompts", "a", "--size", "12") / "0000.png").shape == (12, 12, 3)


def test_a_prompt_over_the_limit_is_cut_and_said_so(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    sample("--prompts", "a red fox in snow in snow in snow", "a red fox in snow")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: only the first 6 tokens are used of: a red fox in snow in snow in snow"]


def test_a_tiny_autoencoder_decodes_too(sample: Sample, tmp_path: Path) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path / "taesd")
    assert pixels(sample("--prompts", "a", vae=f"{tmp_path}/taesd") / "0000.png").shape == (16, 16, 3)


def test_a_vae_with_another_scaling_is_pointed_out(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_kl(tmp_path / "other")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    sample("--prompts", "a", vae=str(directory))
    assert "0.13025" in capsys.readouterr().err


def test_each_mistake_is_told_in_one_line(sample: Sample, tmp_path: Path) -> None:
    wide, channels = write_t5(tmp_path / "wide", width=24), write_kl(tmp_path / "channels", channels=8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text('{"_class_name": "VQModel"}')
    broken = write_kl(tmp_path / "broken")
    (broken / "diffusion_pytorch_model.safetensors").unlink()
    lacking = [write_t5(tmp_path / "t5-lacking"), write_kl(tmp_path / "vae-lacking")]
    for directory, name in zip(lacking, ("model", "diffusion_pytorch_model"), strict=True):
        tensors = load_file(directory / f"{name}.safetensors")
        save_file(dict(sorted(tensors.items())[:-1]), directory / f"{name}.safetensors", {"format": "pt"})
    unspelled, cut, spoilt, unending = (write_t5(tmp_path / f"t5-{name}") for name in ("no", "cut", "bad", "endless"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (unspelled / name).unlink()
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    (spoilt / "tokenizer.json").write_text("{}")
    spelling = json.loads((unending / "tokenizer.json").read_text())
    (unending / "tokenizer.json").write_text(json.dumps({**spelling, "post_processor": None}))
    listed, blockless = write_kl(tmp_path / "listed"), write_kl(tmp_path / "blockless")
    (listed / "config.json").write_text("[]")
    (blockless / "config.json").write_text('{"_class_name": "AutoencoderKL", "block_out_channels": null}')
    mistakes: list[tuple[str, list[str], dict[str, str]]] = [
        ("no such run", [], {"run": "/nowhere"}),
        ("no such weights", [], {"run": f"{tmp_path}/empty"}),
        ("no such weights", [], {"weights": "/nowhere.safetensors"}),
        ("24 wide", [], {"t5": str(wide)}),
        ("no such directory", [], {"t5": "/nowhere"}),
        ("no T5", [], {"t5": f"{tmp_path}/empty"}),
        ("8 latent channels", [], {"vae": str(channels)}),
        ("no VAE", [], {"vae": f"{tmp_path}/empty"}),
        ("a VQModel", [], {"vae": f"{tmp_path}/foreign"}),
        ("does not load", [], {"vae": str(broken)}),
        ("weights of the T5 are missing", [], {"t5": str(lacking[0])}),
        ("no tokenizer there", [], {"t5": str(unspelled)}),
        (r"the T5 does not load \(Error while deserializing", [], {"t5": str(cut)}),
        ("tokenizer does not load", [], {"t5": str(spoilt)}),
        ("adds no end token", [], {"t5": str(unending)}),
        ("no VAE", [], {"vae": str(listed)}),
        ("the VAE does not load", [], {"vae": str(blockless)}),
        ("weights of the VAE are missing", [], {"vae": str(lacking[1])}),
        ("not a size", ["--size", "large"], {}),
        ("multiples of 4 px", ["--size", "18"], {}),
        ("Use 1 to 999", ["--steps", "1000"], {}),
        ("sampler euler is not for a model that predicts epsilon", ["--sampler", "euler"], {}),
        ("--device warp", ["--device", "warp"], {}),
    ]
    for words, arguments, places in mistakes:
        with pytest.raises(UserError, match=words) as caught:
            sample("--prompts", "a", *arguments, **places)
        assert "\n" not in str(caught.value), words
    for words, file in (("no prompt", "empty.txt"), ("cannot be read", "none.txt")):
        with pytest.raises(UserError, match=words):
            sample("--prompts-file", str(tmp_path / file))


def test_gpu_memory_that_runs_out_is_told_in_one_line(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr("training.sampling.drawing.sample", full)
    with pytest.raises(UserError, match=r"1 pictures at a time\. Lower --batch"):
        sample("--prompts", "a")


def test_classes_are_drawn_without_any_text(sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "dit.safetensors"
    write_weights(weights, 0, "ema", DitConfig(depth=1, hidden=48, heads=4, classes=9, position_base=4))
    out = sample("--classes", "7", "2", "7", "--batch", "2", weights=str(weights), t5="")
    assert "3 pictures of 16x16 px" in capsys.readouterr().out
    assert Image.open(out / "0001.png").text["prompt"] == "class 2"
    again = sample("--classes", "2", "--seed", "1", weights=str(weights), t5="")
    assert np.array_equal(pixels(out / "0001.png"), pixels(again / "0000.png"))
    assert not np.array_equal(pixels(out / "0000.png"), pixels(out / "0002.png"))  # of one class, but other seeds
    for arguments, places, said in (
        (("--classes", "9"), {"weights": str(weights), "t5": ""}, "has the classes 0 to 8"),
        (("--prompts", "a"), {"weights": str(weights)}, "class-conditional DiT"),
        (("--prompts", "a"), {"t5": ""}, "no --t5 given"),
        (("--classes", "1"), {}, "leave out --t5"),
    ):
        with pytest.raises(UserError, match=said):
            sample(*arguments, **places)


def test_the_null_caption_in_the_weights_guides_in_place_of_the_empty_string(sample: Sample, tmp_path: Path) -> None:
    keeping = replace(CONFIG, null_caption="buffer")
    write_weights(tmp_path / "plain.safetensors", 0, "ema")
    write_weights(tmp_path / "keeping.safetensors", 0, "ema", keeping)
    outs = [
        sample("--prompts", "a red fox", "--guidance", scale, weights=f"{tmp_path}/{name}.safetensors")
        for scale in ("1", "4")
        for name in ("plain", "keeping")
    ]
    drawn = [pixels(out / "0000.png") for out in outs]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[2], drawn[3])


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_a_seed_that_does_not_fit_is_refused(sample: Sample, capsys: pytest.CaptureFixture[str], seed: str) -> None:
    with pytest.raises(SystemExit) as caught:
        sample("--prompts", "a", f"--seed={seed}")
    assert caught.value.code == ExitCode.BAD_INPUT
    assert "argument --seed" in capsys.readouterr().err


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys, pipelines.sample as s\n"
        "try: s.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--guidance" in done.stdout
