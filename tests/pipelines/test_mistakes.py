"""Arguments that no command can use: one line that says which, exit code 2, and nothing is written."""

import importlib
from pathlib import Path

import pytest

from curation.demo.shipped import VAE
from pipelines.command import run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("demo --out file", "--out file: a file, not a directory"),
        ("demo --out new --workers 0", "argument --workers: 0 is less than 1"),
        ("tiny_models --out new --seed -1", "--seed -1 does not fit"),
        ("tiny_models --out new --seed 99999999999999999999", "--seed 99999999999999999999 does not fit"),
        ("train_small vae --card-only --out model", "model: cannot be measured as a vae"),
        ("train_small detector --card-only --out {vae}", "no detector of this package there"),
        ("train_tagger --card-only --treebanks new --out model", "model: no spaCy pipeline there to measure"),
        ("evaluate scenes --samples new --truth new --vae {vae} --true-latents new", "new: no such directory"),
        ("prompts --prompts a --t5 new --out new --max-tokens 1", "--max-tokens 1: must be at least 2"),
        ("evaluate loss --run new --latents new --json model", "--json model: a directory. Name a file"),
        ("evaluate scenes --samples new --truth new --json model", "--json model: a directory. Name a file"),
        ("evaluate score --samples new --clip new --json model", "--json model: a directory. Name a file"),
        ("evaluate loss --run new --latents new --count -1", "argument --count: -1 is negative"),
        ("evaluate loss --run new --latents new --threads -1", "argument --threads: -1 is negative"),
        ("evaluate loss --run new --latents new --held-out 2", "--held-out 2.0 is no share"),
        ("sample --run new --vae new --classes 1 --out new --guidance nan", "argument --guidance: nan is not a number"),
        ("sample --run new --vae new --classes 1 --out new --steps x", "argument --steps: x is not a whole number"),
        ("measure --shards new --source folder --out new --cpus-per-worker -1", "-1 is not a number from 0 up"),
        ("measure --shards new --source folder --out new --gpus-per-worker nan", "nan is not a number from 0 up"),
        ("train replay --out model --step 1", "model: no training run there"),
        ("train replay --out model --step 1 --micro-batch 0", "argument --micro-batch: 0 is less than 1"),
        ("train --stage algn --out new", "argument --stage: invalid choice: 'algn'"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "t5"}')
    before = sorted(tmp_path.rglob("*"))
    name, *arguments = line.format(vae=VAE).split()
    with pytest.raises(SystemExit) as ended:
        run(importlib.import_module(f"pipelines.{name}").main, arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert (said in error, error.startswith("error: "), error.count("\n")) == (True, True, 1), error
    assert sorted(tmp_path.rglob("*")) == before
