import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing_models import write_kl
from PIL import Image
from training_runs import saved, step_losses

from pipelines.train import main, stage_of
from pipelines.train_arguments import parser
from schemas.errors import ExitCode
from training.models.config import PIXART_SIZES, PixArtConfig
from training.stages import STAGES
from training.weights.files import load_any_weights, read_facts

Write = Callable[..., Any]
ROOT = Path(__file__).parents[2]
SMALL = ("--model", "tiny/2", "--steps", "3", "--global-batch", "4", "--lr", "1e-3", "--warmup", "1", "--clip", "1")
OFTEN = ("--device", "cpu", "--log-every", "1", "--save-every", "3", "--micro-batch", "4")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where joined data sets are kept; not where other temporary files are."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def run(stage: str, out: Path, *more: str) -> ExitCode:
    return ExitCode(main(["--stage", stage, "--out", str(out), "--resolution", "64", *SMALL, *OFTEN, *more]))


def test_the_stages_hand_over_to_each_other_up_to_the_last(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = write_features(folder="squares", classes=3)
    aspect = write_features(folder="aspect", buckets={(64, 64): 6, (32, 96): 6})
    text = ("--latents", str(squares.latents), "--text", str(squares.text))
    buckets = ("--latents", str(aspect.latents), "--text", str(aspect.text))
    runs = {name: tmp_path / name for name in STAGES}
    assert run("pixel", runs["pixel"], "--latents", str(squares.latents), "--classes", "3") == ExitCode.OK
    said = capsys.readouterr().err
    assert "stage pixel (pixel dependency): conditioned on classes, px 64 (not 256)" in said
    assert "steps 3 (not 300,000), global batch 4 (not 1,024)" in said
    assert run("align", runs["align"], *text, "--init-from", str(runs["pixel"])) == ExitCode.OK
    said = capsys.readouterr().err
    assert "ema.safetensors (DiT, pixel, ema, after 12 images) to PixArt" in said
    assert "drawn anew: blocks.*.cross_attn" in said
    assert run("aesthetic-256", runs["aesthetic-256"], *text, "--init-from", str(runs["align"])) == ExitCode.OK
    assert "0 computed, 0 drawn anew" in capsys.readouterr().err
    # The width of tiny/2 is no multiple of 3, as micro-conditions need.
    last = (*buckets, "--init-from", str(runs["aesthetic-512"]), "--no-micro-conditions")
    raw = (*buckets, "--init-from", str(runs["aesthetic-256"]), "--init-weights", "raw")
    assert run("aesthetic-512", runs["aesthetic-512"], *raw) == ExitCode.OK
    assert "raw.safetensors (PixArt, aesthetic-256, raw" in capsys.readouterr().err
    assert run("aesthetic-1024", runs["aesthetic-1024"], *last) == ExitCode.OK
    said = capsys.readouterr().err
    assert "scale 1 before, 4 tokens a side, scale 2 now" in said
    assert "micro-conditions no (not yes)" in said
    for name, folder in runs.items():
        assert read_facts(folder / "weights" / "raw.safetensors")[1]["stage"] == name
    recipe = json.loads((runs["align"] / "config.json").read_text())["recipe"]
    assert recipe["reading"] == {"shared": "first-block", "timestep": 500, "without_class": "zero"}
    assert len(recipe["init_digest"]) == 32


def test_the_last_stage_takes_up_sizes_and_shapes_of_pictures_and_learns_from_them(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PIXART_SIZES, "narrow/2", PixArtConfig(depth=2, hidden=48, heads=2))  # three parts of 16
    made = write_features(buckets={(64, 64): 6, (32, 96): 6, (96, 32): 4})
    more = ("--latents", str(made.latents), "--text", str(made.text), "--model", "narrow/2")
    last, onward = tmp_path / "last", ("--init-from", str(tmp_path / "before"))
    assert run("aesthetic-512", tmp_path / "before", *more) == ExitCode.OK
    capsys.readouterr()
    assert run("aesthetic-1024", last, *more, *onward, "--steps", "6") == ExitCode.OK
    said = capsys.readouterr().err
    assert "micro-conditions yes, position scale 2" in said
    assert "px 64 (not 1,024)" in said
    drawn = said.partition("drawn anew: ")[2].partition("\n")[0].split(", ")
    layers = [f"mlp.{layer}.{part}" for layer in (0, 2) for part in ("bias", "weight")]
    assert drawn == [f"{embedder}.{layer}" for embedder in ("ar_embedder", "csize_embedder") for layer in layers]
    config, tensors, metadata = load_any_weights(last / "weights" / "raw.safetensors")
    assert isinstance(config, PixArtConfig)
    assert (config.micro_conditions, config.position_scale, metadata["stage"]) == (True, 2.0, "aesthetic-1024")
    assert tensors.keys() - load_any_weights(tmp_path / "before" / "weights" / "raw.safetensors")[1].keys() == {*drawn}
    whole = saved(last, 6)
    for name in drawn:  # reached by the gradient
        assert any(whole[f"optimiser.safetensors/exp_avg.{name}"]), name
    parts = tmp_path / "parts"
    assert run("aesthetic-1024", parts, *more, *onward) == ExitCode.OK
    assert run("aesthetic-1024", parts, *more, *onward, "--steps", "6") == ExitCode.OK
    assert saved(parts, 6) == whole
    assert step_losses(parts) == step_losses(last)


def test_the_reading_of_the_paper_is_chosen_by_flags_and_binds_the_run(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features(classes=3)
    assert run("pixel", tmp_path / "pixel", "--latents", str(made.latents), "--classes", "3") == ExitCode.OK
    text = ("--latents", str(made.latents), "--text", str(made.text), "--init-from", str(tmp_path / "pixel"))
    flags = ("--reparameterise", "fresh", "--without-class", "null-class", "--reparameterise-at", "250")
    assert run("align", tmp_path / "align", *text, *flags) == ExitCode.OK
    assert "t_block.1.weight" in capsys.readouterr().err.partition("drawn anew: ")[2]
    assert run("align", tmp_path / "align", *text, "--steps", "9") == ExitCode.BAD_INPUT
    assert "reading.shared was fresh, now first-block" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["pixel", "align"])
def test_a_run_goes_on_bitwise_once_the_weights_it_started_from_are_gone(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    made = write_features(classes=3)
    latents, text = ("--latents", str(made.latents)), ("--text", str(made.text))
    first = (*latents, "--classes", "3") if source == "pixel" else (*latents, *text, "--null-caption", "buffer")
    assert run(source, tmp_path / "first", *first) == ExitCode.OK
    more = (*latents, *text, "--init-from", str(tmp_path / "first"))
    if source == "align":
        more = (*more, "--null-caption", "buffer")
    assert run("align", tmp_path / "whole", *more, "--steps", "6") == ExitCode.OK
    assert run("align", tmp_path / "parts", *more) == ExitCode.OK
    weights = tmp_path / "first" / "weights" / "ema.safetensors"
    held = weights.read_bytes()
    weights.write_bytes((tmp_path / "first" / "weights" / "raw.safetensors").read_bytes())
    capsys.readouterr()
    assert run("align", tmp_path / "parts", *more, "--steps", "6") == ExitCode.BAD_INPUT
    assert f"--init-from was {weights} (" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "first")
    assert run("align", tmp_path / "new", *more) == ExitCode.BAD_INPUT
    assert "no such file" in capsys.readouterr().err
    if source == "pixel":
        assert run("align", tmp_path / "parts", *more, "--reparameterise-at", "250") == ExitCode.BAD_INPUT
        assert "reading.timestep was 500, now 250" in capsys.readouterr().err
    assert run("align", tmp_path / "parts", *more, "--steps", "6") == ExitCode.OK
    assert "first is gone, and this run goes on without it" in capsys.readouterr().err
    assert saved(tmp_path / "parts", 6) == saved(tmp_path / "whole", 6)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(held)
    assert run("align", tmp_path / "parts", *more, "--steps", "7") == ExitCode.OK


def test_a_mistyped_start_of_a_run_that_goes_on_is_told_beside_the_recorded_one(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features(classes=3)
    text = ("--latents", str(made.latents), "--text", str(made.text))
    assert run("pixel", tmp_path / "pixel", "--latents", str(made.latents), "--classes", "3") == ExitCode.OK
    assert run("align", tmp_path / "align", *text, "--init-from", str(tmp_path / "pixel")) == ExitCode.OK
    weights, wrong = tmp_path / "pixel" / "weights" / "ema.safetensors", tmp_path / "pixl"
    digest = json.loads((tmp_path / "align" / "config.json").read_text())["recipe"]["init_digest"]
    for steps in ("4", "5"):  # the second time too: what was mistyped is not what is recorded
        capsys.readouterr()
        assert run("align", tmp_path / "align", *text, "--init-from", str(wrong), "--steps", steps) == ExitCode.OK
        said = (
            f"--init-from {wrong}: no such file; this run was begun from {weights} ({digest}), which it does not need"
        )
        assert said in capsys.readouterr().err
    assert run("align", tmp_path / "align", *text, "--steps", "6") == ExitCode.BAD_INPUT
    assert f"--init-from was {weights} ({digest}), now not given. Give" in capsys.readouterr().err


def test_a_run_from_random_weights_that_goes_on_takes_no_start(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features()
    text = ("--latents", str(made.latents), "--text", str(made.text))
    assert run("align", tmp_path / "run", *text) == ExitCode.OK
    assert run("align", tmp_path / "run", *text, "--init-from", str(tmp_path / "nowhere")) == ExitCode.BAD_INPUT
    assert "no such file, and this run was begun from random weights. Leave it out" in capsys.readouterr().err
    weights = tmp_path / "run" / "weights" / "ema.safetensors"
    assert run("align", tmp_path / "run", *text, "--init-from", str(weights)) == ExitCode.BAD_INPUT
    assert f"--init-from was not given, now {weights} (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--stage", "align"), "stage align trains at 256 px, and the data has 64 px"),
        (
            ("--stage", "align", "--resolution", "64"),
            "trains on squares, and the data has 1 aspect buckets such as 32x96",
        ),
        (("--stage", "pixel", "--resolution", "64", "--multi-scale"), "Leave out --text"),
        (("--lr-rule", "sqrt", "--tokens-per-batch", "400"), "needs a batch of one size"),
        (("--stage", "aesthetic-1024", "--resolution", "64", "--init-from", "WEIGHTS"), "weights of stage align, and"),
        (("--null-caption", "buffer", "--init-from", "/nowhere"), "no such file"),
    ],
)
def test_data_and_weights_that_do_not_fit_the_stage_are_refused_in_one_line(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    made = write_features(buckets={(64, 64): 6, (32, 96): 6})
    data = ["--latents", str(made.latents), "--text", str(made.text), "--out", str(tmp_path / "run")]
    if "WEIGHTS" in arguments:
        first = ("--multi-scale", *data[:4])
        assert run("align", tmp_path / "first", *first) == ExitCode.OK
        capsys.readouterr()
        arguments = tuple(str(tmp_path / "first") if part == "WEIGHTS" else part for part in arguments)
    small = ["--model", "tiny/2", "--steps", "3", *OFTEN]
    assert main([*data, *small, *arguments]) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_text_is_asked_for_where_the_stage_needs_it(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = ("--latents", str(write_features(classes=3).latents))
    assert run("align", tmp_path / "run", *latents) == ExitCode.BAD_INPUT
    assert "no --text given" in capsys.readouterr().err
    assert run("pixel", tmp_path / "run", *latents, "--classes", "2") == ExitCode.BAD_INPUT
    assert "4 of 12 samples have no label from 0 to 1" in capsys.readouterr().err


def test_the_papers_numbers_are_the_defaults_and_flags_override_them() -> None:
    options = parser("").parse_args(["--out", "run", "--stage", "aesthetic-1024"])
    stage, usual = stage_of(options)
    assert stage == usual == STAGES["aesthetic-1024"]
    assert (stage.resolution_px, stage.steps, stage.global_batch, stage.micro_batch) == (1024, 16_000, 384, 12)
    assert (stage.lr, stage.lr_rule, stage.warmup_steps, stage.clip) == (2e-5, "constant", 1000, 0.01)
    assert (stage.multi_scale, stage.micro_conditions, stage.position_scale) == (True, True, 2.0)
    flags = ["--steps", "5", "--lr", "1", "--no-micro-conditions", "--warmup", "0", "--micro-batch", "2"]
    changed, _ = stage_of(parser("").parse_args(["--out", "run", "--stage", "aesthetic-1024", *flags]))
    assert changed == replace(stage, steps=5, lr=1.0, micro_conditions=False, warmup_steps=0, micro_batch=2)


def test_the_rule_of_the_released_code_scales_the_rate_and_says_so(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features()
    data = ("--latents", str(made.latents), "--text", str(made.text))
    assert run("align", tmp_path / "run", *data, "--lr-rule", "sqrt") == ExitCode.OK
    assert "learning rate 0.000125 after 1 steps of warm-up" in capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["optimiser"]
    assert (config["lr"], config["lr_rule"]) == (1e-3 / 8, "sqrt")
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["lr"] == 1e-3 / 8


def test_the_null_caption_of_released_weights_goes_through_training_as_it_is(
    write_features: Write, tmp_path: Path
) -> None:
    made = write_features()
    data = ("--latents", str(made.latents), "--text", str(made.text), "--caption-drop", "0.5")
    assert run("align", tmp_path / "a", *data, "--null-caption", "buffer") == ExitCode.OK
    assert run("align", tmp_path / "b", *data, "--null-caption", "buffer", "--init-from", str(tmp_path / "a")) == 0
    name = "y_embedder.y_embedding"
    before, after = (load_any_weights(tmp_path / run / "weights" / "ema.safetensors")[1][name] for run in "ab")
    assert before.equal(after)
    assert run("align", tmp_path / "c", *data) == ExitCode.OK
    losses = [(tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1] for run in "ac"]
    assert json.loads(losses[0])["step_loss"] != json.loads(losses[1])["step_loss"]


def on_two_ranks(*arguments: str) -> str:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "pipelines.train", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def watched(write_features: Write) -> list[str]:
    """The arguments of a class-conditional run whose loss is looked at after its steps 3 and 6; but for its --out."""
    made = write_features(buckets={(64, 64): 40}, classes=3)
    data = ["--stage", "pixel", "--resolution", "64", "--latents", str(made.latents), "--classes", "3", *SMALL, *OFTEN]
    return [*data, "--steps", "6", "--held-out", "0.3", "--validate-every", "3"]


def held_out(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    return [at["mse"] for record in records for kind in ("raw", "ema") for at in record[kind]["by_timestep"]]


def pictures(run: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), np.int16) for path in sorted((run / "grids").iterdir())])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_classes_on_two_ranks_agree_with_one_are_looked_at_together_and_resume_bitwise(
    write_features: Write, tmp_path: Path
) -> None:
    command = watched(write_features)
    assert main([*command, "--out", str(tmp_path / "one")]) == ExitCode.OK
    on_two_ranks(*command, "--out", str(tmp_path / "two"))
    assert step_losses(tmp_path / "two") == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)
    assert len(held_out(tmp_path / "two")) == 2 * 2 * 8
    assert held_out(tmp_path / "two") == pytest.approx(held_out(tmp_path / "one"), rel=1e-4)
    shutil.copytree(tmp_path / "two", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    assert "going on from step 3" in on_two_ranks(*command, "--out", str(tmp_path / "parts"))
    assert saved(tmp_path / "parts", 6) == saved(tmp_path / "two", 6)
    assert held_out(tmp_path / "parts") == held_out(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [(), ("--shard",)])
def test_a_model_on_two_ranks_draws_and_is_measured_as_on_one(
    write_features: Write, tmp_path: Path, how: tuple[str, ...]
) -> None:
    grids = ["--grid-every", "3", "--grid-classes", "0", "1", "2", "--grid-vae", str(write_kl(tmp_path / "vae"))]
    command = [*watched(write_features), *grids]
    assert main([*command, "--out", str(tmp_path / "whole")]) == ExitCode.OK
    on_two_ranks(*command, *how, "--out", str(tmp_path / "split"))
    assert step_losses(tmp_path / "split") == pytest.approx(step_losses(tmp_path / "whole"), rel=1e-5)
    assert held_out(tmp_path / "split") == pytest.approx(held_out(tmp_path / "whole"), rel=1e-4)
    assert np.abs(pictures(tmp_path / "split") - pictures(tmp_path / "whole")).max() <= 1
