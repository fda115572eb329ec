import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from training_runs import saved, step_losses

from pipelines.train import main, model_config, objective_of, parser
from schemas.errors import ExitCode
from training.data.manifest import open_manifest
from training.models.config import PixArtConfig
from training.stages import FREE, resolution

Write = Callable[..., Any]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where joined data sets are kept; not where other temporary files are."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def arguments(features: Any, out: Path, *more: str) -> list[str]:
    data = ["--latents", str(features.latents), "--text", str(features.text), "--out", str(out)]
    recipe = [
        "--model",
        "tiny/2",
        "--steps",
        "6",
        "--global-batch",
        "8",
        "--lr",
        "1e-3",
        "--warmup",
        "2",
        "--clip",
        "1",
    ]
    return [*data, *recipe, "--device", "cpu", "--log-every", "2", "--save-every", "3", *more]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer("training_child.py", tmp_path_factory.mktemp("log") / "jobs.log") as server:
        yield server


def on_ranks(server: ForkServer, ranks: int, command: list[str], cache: Path) -> str:
    """Train by so many ranks, forked rather than started by torchrun, which takes seconds each; what rank 0 said."""
    assert server.run([*command, "--manifest-cache", str(cache)], ranks=ranks) == ExitCode.OK, server.said
    return server.said


def refused_by_torchrun(command: list[str]) -> str:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "pipelines.train", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode != 0
    return done.stderr


def binned(run: Path) -> list[dict[str, float]]:
    """The loss by timestep of each record; nan where no sample fell into a bin."""
    records = [json.loads(line)["loss_by_timestep"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: math.nan if mean is None else mean for name, mean in record.items()} for record in records]


def test_a_run_tells_its_progress_and_ends_with_a_summary(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features()
    assert main(arguments(features, tmp_path / "run")) == ExitCode.OK
    said = capsys.readouterr()
    assert "12 samples in 1 buckets" in said.err
    assert "step 6/6  images 48  loss " in said.err
    assert "loss, last 10 steps" in said.out
    assert main(arguments(features, tmp_path / "run")) == ExitCode.OK
    assert "nothing to do" in capsys.readouterr().err


def test_the_model_is_shaped_by_the_data(write_features: Write) -> None:
    features = write_features(buckets={(64, 64): 6, (32, 96): 3}, dim=48, max_tokens=20)
    options = parser("").parse_args(["--out", "run", "--model", "tiny/2"])
    manifest = open_manifest(str(features.latents), str(features.text))
    config = model_config(options, FREE, manifest, learn_sigma=True)
    assert isinstance(config, PixArtConfig)
    assert (config.caption_channels, config.in_channels, config.text_tokens) == (48, 4, 20)
    assert (config.position_base, config.position_scale) == (4, 1.0)


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        (((256, 256),), 256),
        (((128, 512), (144, 448)), 256),
        (((512, 2048), (1024, 1024)), 1024),
        (((496, 512), (256, 992)), 512),
        (((64, 64),), 64),
    ],
)
def test_the_resolution_is_that_of_the_bucket_table(buckets: tuple[tuple[int, int], ...], expected: int) -> None:
    assert resolution(buckets) == expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--latents", "/nowhere"), "no dataset.json there"),
        (("--init-from", "/nowhere/ema.safetensors"), "no such file"),
        (("--global-batch", "0"), "--global-batch"),
        (("--max-unmatched", "2"), "--max-unmatched 2.0 is no share"),
        (("--resolution", "-1"), "--resolution -1 is no number of pixels"),
        (("--position-scale", "-1"), "PixArt: position_scale is -1.0, and must be above 0"),
        (("--caption-drop", "2"), "--caption-drop 2.0 is no share"),
        (("--device", "cuda"), "no CUDA device"),
        (("--micro-batch", "0"), "--micro-batch 0 is too small"),
        (("--steps", "0"), "--steps 0 is too small"),
        (("--max-skipped", "0"), "--max-skipped 0 is too small"),
        (("--lr", "nan"), "--lr nan is no learning rate"),
        (("--weight-decay", "-1"), "--weight-decay -1.0"),
        (("--seed", str(2**64)), "--seed"),
        (("--tokens-per-batch", "900"), "two ways to say"),
        (("--shuffle-window", "-1"), "--shuffle-window -1 is negative"),
        (("--text", "/nowhere=0"), "must be above 0"),
        (("--zero-terminal-snr",), "zero terminal SNR needs the v prediction"),
        (("--prediction", "v", "--zero-terminal-snr", "--min-snr", "5"), "Use one of the two"),
        (("--prediction", "flow", "--min-snr", "5"), "min-SNR is no weight of flow matching"),
        (("--time-density", "logit-normal"), "belong to flow matching"),
        (("--time-shift", "3"), "belong to flow matching"),
        (("--prediction", "flow", "--time-std", "0"), "time std 0.0"),
        (("--min-snr", "nan"), "min-SNR gamma nan"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    if "cuda" in more:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
    assert main(arguments(write_features(), tmp_path / "run", *more)) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_pictures_that_tokens_do_not_divide_are_refused_in_one_line(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features(buckets={(64, 64): 6, (64, 72): 3})
    assert main(arguments(features, tmp_path / "run")) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: the data holds pictures of 64x72 px, but --model tiny/2 needs multiples of 16 px")
    assert error.count("\n") == 1


@pytest.mark.parametrize("place", ["file", "file/run", "features/latents"])
def test_an_out_that_is_no_place_for_a_run_is_refused_in_one_line(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    features = write_features()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(features, tmp_path / place)) in (ExitCode.BAD_INPUT, ExitCode.STORAGE)
    assert sorted(tmp_path.rglob("*")) == before
    error = capsys.readouterr().err
    assert "another --out" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "error (rank 1): interrupted; the same command"),
        (RuntimeError("[pair.cc:553] Connection closed by peer [::1]:1"), ExitCode.STOPPED, "lost another rank"),
    ],
)
def test_what_ends_a_run_from_outside_is_told_in_one_line(
    write_features: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: ExitCode,
    said: str,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("training.data.manifest.open_mixture", fail)
    assert main(arguments(write_features(), tmp_path / "run")) == code
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_another_recipe_in_the_same_directory_is_refused(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features()
    assert main(arguments(features, tmp_path / "run", "--steps", "1")) == ExitCode.OK
    capsys.readouterr()
    assert main(arguments(features, tmp_path / "run", "--seed", "5", "--clip", "0.5")) == ExitCode.BAD_INPUT
    assert "seed was 0, now 5; optimiser.clip was 1.0, now 0.5" in capsys.readouterr().err


def test_another_policy_or_mixture_in_the_same_directory_is_refused(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features()
    assert main(arguments(features, tmp_path / "run", "--steps", "1")) == ExitCode.OK
    assert "batches of 8 samples; shuffled as a whole; 0.1 of captions dropped" in capsys.readouterr().err
    for more, said in (
        (("--shuffle-window", "64"), "policy.shuffle_window was 0, now 64"),
        (("--caption-drop", "0.2"), "policy.caption_drop was 0.1, now 0.2"),
        (("--text", f"{features.text}=3"), "policy.datasets.0.captions was (1.0,), now (1.0, 3.0)"),
    ):
        assert main(arguments(features, tmp_path / "run", *more)) == ExitCode.BAD_INPUT
        assert said in capsys.readouterr().err


def test_a_mixture_with_a_token_budget_trains_alike_on_three_ranks_and_goes_on_with_one(
    write_features: Write, tmp_path: Path, server: ForkServer, cache: Path
) -> None:
    one = write_features(folder="one", buckets={(64, 64): 12, (32, 96): 9})
    two = write_features(folder="two", seed=4, buckets={(64, 64): 10}, without_text=(3,))
    for name in ("null.text.npy", "dataset.json"):  # both of one T5
        (two.text / name).write_bytes((one.text / name).read_bytes())
    (tmp_path / "mixture.toml").write_text(
        '[[dataset]]\nname = "a"\nlatents = "one/latents"\ntext = "one/text"\n'
        '[[dataset]]\nname = "b"\nlatents = "two/latents"\ntext = "two/text"\nweight = 0.5\n'
    )
    data = ["--data", str(tmp_path / "mixture.toml"), "--max-unmatched", "0.1", "--shuffle-window", "16"]
    recipe = ["--model", "tiny/2", "--tokens-per-batch", "200", "--lr", "1e-3", "--warmup", "2", "--clip", "1"]
    command = [*data, *recipe, "--device", "cpu", "--log-every", "2", "--save-every", "3", "--micro-batch", "2"]
    assert main([*command, "--steps", "6", "--out", str(tmp_path / "one-rank")]) == ExitCode.OK
    said = on_ranks(server, 3, [*command, "--steps", "4", "--out", str(tmp_path / "three")], cache)
    assert "samples over 3 ranks" in said
    assert main([*command, "--steps", "6", "--out", str(tmp_path / "three")]) == ExitCode.OK
    assert step_losses(tmp_path / "three") == pytest.approx(step_losses(tmp_path / "one-rank"), rel=1e-5)
    states = [
        json.loads((p / "checkpoints" / "step-00000006" / "state.json").read_text())["plan"]
        for p in (tmp_path / "three", tmp_path / "one-rank")
    ]
    assert states[0] == states[1]
    assert len(json.dumps(states[0])) < 300


def test_a_run_stopped_by_a_signal_ends_with_its_exit_code_and_goes_on(write_features: Write, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.train", *arguments(write_features(), tmp_path / "run")]
    endless = [*command, "--steps", "1000000", "--keep-checkpoints", "1"]
    process = subprocess.Popen(endless, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("step 2/"):
        assert process.poll() is None
    process.terminate()
    out, error = process.communicate(timeout=100)
    assert process.returncode == ExitCode.TERMINATED
    assert "error: stopped by SIGTERM and saved at step " in error
    assert "images seen" in out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_full_disk_is_told_in_one_line(
    write_features: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("training.checkpoints.folder.replace_text", full)
    assert main(arguments(write_features(), tmp_path / "run")) == ExitCode.STORAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert os.strerror(number) in error


def test_help_does_not_load_torch() -> None:
    code = "import sys; from pipelines.train import parser; parser(str()).format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_default_is_shown_in_the_help() -> None:
    text = " ".join(parser("").format_help().split())
    for action in parser("")._actions:
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert f"(default {action.default})" in text


@pytest.mark.parametrize(
    ("flags", "channels"),
    [
        ((), 8),
        (("--prediction", "v", "--min-snr", "5"), 8),
        (("--prediction", "flow", "--time-density", "logit-normal", "--time-shift", "3"), 4),
    ],
)
def test_the_objective_of_the_flags_is_kept_in_run_and_weights(
    write_features: Write, tmp_path: Path, flags: tuple[str, ...], channels: int
) -> None:
    from training.diffusion.config import from_metadata
    from training.weights.files import load_weights

    assert main(arguments(write_features(), tmp_path / "run", "--steps", "2", *flags)) == ExitCode.OK
    config, _, metadata = load_weights(tmp_path / "run" / "weights" / "ema.safetensors")
    assert config.out_channels == channels
    objective = objective_of(parser("").parse_args(["--out", "run", *flags]))
    assert from_metadata(metadata, "weights") == objective
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert recipe["objective"] == dataclasses.asdict(objective)
    (record,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert any(record["loss_by_timestep"].values())
    assert "mfu" not in record  # nobody knows a CPU's peak


def test_three_ranks_agree_with_one_and_resume_bitwise(
    write_features: Write, tmp_path: Path, server: ForkServer, cache: Path
) -> None:
    features = write_features(buckets={(64, 64): 12, (32, 96): 9})
    assert main(arguments(features, tmp_path / "one")) == ExitCode.OK
    said = on_ranks(server, 3, arguments(features, tmp_path / "three", "--micro-batch", "2"), cache)
    assert "global batch 8 = 3 ranks × 2 micro-steps" in said
    assert step_losses(tmp_path / "three") == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)
    for theirs, alone in zip(binned(tmp_path / "three"), binned(tmp_path / "one"), strict=True):
        assert theirs == pytest.approx(alone, rel=1e-5, nan_ok=True)

    shutil.copytree(tmp_path / "three", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    said = on_ranks(server, 3, arguments(features, tmp_path / "parts", "--micro-batch", "2"), cache)
    assert "going on from step 3" in said
    assert saved(tmp_path / "parts", 6) == saved(tmp_path / "three", 6)

    said = refused_by_torchrun(arguments(features, tmp_path / "parts", "--seed", "5"))
    for rank in range(3):
        assert said.count(f"error (rank {rank}): {tmp_path}/parts was begun otherwise: seed was 0, now 5") == 1
    assert "[rank" not in said  # which torch puts before each line of a traceback

    (tmp_path / "parts" / "checkpoints" / "step-00000006" / "state.json").unlink()
    assert main(arguments(features, tmp_path / "parts")) == ExitCode.OK
    assert step_losses(tmp_path / "parts") == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)
