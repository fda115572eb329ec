"""Damaged samples in training: all ranks leave them out alike, or stop alike."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import records, saved, step_losses

from pipelines.train import main
from schemas.errors import ExitCode
from training.data.manifest import Manifest, Places, open_manifest

Write = Callable[..., Any]
ROOT = Path(__file__).parents[2]
ROWS = (2, 7)  # of the manifest: latents of the one are damaged, text of the other


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def features(write_features: Write) -> Any:
    return write_features(buckets={(64, 64): 12})


def arguments(features: Any, out: Path, *more: str) -> list[str]:
    data = ["--latents", str(features.latents), "--text", str(features.text), "--out", str(out), "--device", "cpu"]
    recipe = ["--model", "tiny/2", "--steps", "6", "--global-batch", "4", "--caption-drop", "0", "--lr", "1e-3"]
    return [*data, *recipe, "--warmup", "2", "--clip", "1", "--log-every", "2", "--save-every", "6", *more]


def on_two_ranks(command: list[str]) -> tuple[int, str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "pipelines.train", *command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return done.returncode, done.stderr


def turn_over(places: Places, row: int) -> None:
    """Flip all bits of a byte of a sample; done twice it is whole again."""
    with open(places.paths[places.file[row]], "r+b") as file:
        file.seek(int(places.offset[row]) + 300)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


def turn_over_both(features: Any) -> Manifest:
    manifest = open_manifest(str(features.latents), str(features.text))
    turn_over(manifest.latents, ROWS[0])
    turn_over(manifest.text[0], ROWS[1])
    return manifest


def test_damaged_samples_are_left_out_alike_by_one_rank_and_by_two(features: Any, tmp_path: Path) -> None:
    assert main(arguments(features, tmp_path / "whole")) == ExitCode.OK
    manifest = turn_over_both(features)
    skip = ["--on-corrupt", "skip"]
    assert main(arguments(features, tmp_path / "one", *skip)) == ExitCode.OK
    code, said = on_two_ranks(arguments(features, tmp_path / "two", *skip, "--micro-batch", "1"))
    assert code == 0, said
    assert step_losses(tmp_path / "two") == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)
    assert step_losses(tmp_path / "one") != step_losses(tmp_path / "whole")
    for one, two in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert (one["corrupt"], one["corrupt_samples"]) == (two["corrupt"], two["corrupt_samples"])
    assert records(tmp_path / "two")[-1]["corrupt"] == 4  # both in each of two epochs
    for kind, row in (("latents", ROWS[0]), ("text", ROWS[1])):
        assert said.count(f"left out: {kind} of {manifest.name(row)}: ") == 2
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["corrupt_samples"] == 4


def test_too_many_damaged_samples_stop_all_ranks_at_one_step_with_one_line(features: Any, tmp_path: Path) -> None:
    turn_over_both(features)
    bound = ["--on-corrupt", "skip", "--max-corrupt", "1"]
    code, said = on_two_ranks(arguments(features, tmp_path / "run", *bound))
    assert code != 0
    assert said.count("more than --max-corrupt 1 allows") == said.count("error (rank ") == 1
    assert "damaged samples were left out up to step" in said


def test_a_damaged_sample_stops_all_ranks_before_its_step_and_the_mended_run_ends_as_if_undisturbed(
    features: Any, tmp_path: Path
) -> None:
    code, said = on_two_ranks(arguments(features, tmp_path / "whole", "--seed", "1"))
    assert code == 0, said
    manifest = open_manifest(str(features.latents), str(features.text))
    turn_over(manifest.text[0], ROWS[1])
    code, said = on_two_ranks(arguments(features, tmp_path / "run", "--seed", "1"))
    assert code != 0
    assert said.count(f"text of {manifest.name(ROWS[1])}: ") == said.count("error (rank ") == 1
    assert "[rank" not in said  # which torch puts before each line of a traceback
    stopped = int(said.split("stopped before step ")[1].split(":")[0])
    assert stopped > 1, "another seed: the first step cannot show that the steps before are saved"
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == f"step-{stopped - 1:08d}\n"

    turn_over(manifest.text[0], ROWS[1])
    code, said = on_two_ranks(arguments(features, tmp_path / "run", "--seed", "1"))
    assert code == 0, said
    assert f"going on from step {stopped - 1}" in said
    assert saved(tmp_path / "run", 6) == saved(tmp_path / "whole", 6)


def test_storage_that_does_not_answer_stops_the_run_whatever_the_policy(
    features: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("training.data.files.os.preadv", refuse)
    assert main(arguments(features, tmp_path / "run", "--on-corrupt", "skip")) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "cannot be read ([Errno 5] Input/output error)" in said
    assert "3 more samples of this step" in said
