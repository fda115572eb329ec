"""A training by several ranks that is killed and goes on, and one by other numbers of ranks."""

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from training_runs import saved, step_losses

STEPS = 8
CURVE = 16  # steps of the loss curves that are compared


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer("training_child.py", tmp_path_factory.mktemp("log") / "jobs.log") as server:
        yield server


@pytest.fixture
def data(write_features: Callable[..., Any], tmp_path: Path) -> list[str]:
    """A mixture of two data sets with buckets, of which one lacks a text."""
    one = write_features(folder="one", buckets={(64, 64): 12, (32, 96): 9})
    two = write_features(folder="two", seed=4, buckets={(64, 64): 10, (96, 32): 5}, without_text=(3,))
    for name in ("null.text.npy", "dataset.json"):  # both of one T5
        (two.text / name).write_bytes((one.text / name).read_bytes())
    (tmp_path / "mixture.toml").write_text(
        '[[dataset]]\nname = "a"\nlatents = "one/latents"\ntext = "one/text"\n'
        '[[dataset]]\nname = "b"\nlatents = "two/latents"\ntext = "two/text"\nweight = 0.5\n'
    )
    found = ["--data", str(tmp_path / "mixture.toml"), "--max-unmatched", "0.1", "--shuffle-window", "16"]
    return [*found, "--manifest-cache", str(tmp_path / "manifests")]


def command(data: Sequence[str], run: Path, steps: int, *more: str) -> list[str]:
    """Two micro-steps or more a step, on up to four ranks."""
    recipe = ["--model", "tiny/2", "--steps", str(steps), "--global-batch", "8", "--micro-batch", "1", "--clip", "1"]
    often = ["--log-every", "2", "--save-every", "3", "--power-ema", "--power-ema-every", "4", "--device", "cpu"]
    return [*data, "--out", str(run), *recipe, *often, *more]


def done(server: ForkServer, arguments: Sequence[str], ranks: int) -> None:
    assert server.run(arguments, ranks=ranks) == 0, server.said


@pytest.mark.parametrize(("ranks", "more"), [(1, ()), (2, ()), pytest.param(2, ("--shard",), marks=pytest.mark.slow)])
def test_a_training_killed_between_checkpoints_ends_bitwise_as_if_undisturbed(
    server: ForkServer, data: list[str], tmp_path: Path, ranks: int, more: tuple[str, ...]
) -> None:
    learning = ["--lr", "1e-3", "--warmup", "2", *more]
    done(server, command(data, tmp_path / "whole", STEPS, *learning), ranks)
    parts = command(data, tmp_path / "parts", STEPS, *learning)
    assert server.run(parts, kill=("step", 6, "after"), ranks=ranks) == -signal.SIGKILL
    assert not (tmp_path / "parts" / "checkpoints" / "step-00000006").exists()
    done(server, parts, ranks)
    assert "going on from step " in server.said
    assert "from step 0" not in server.said
    assert saved(tmp_path / "parts", STEPS) == saved(tmp_path / "whole", STEPS)
    assert step_losses(tmp_path / "parts") == step_losses(tmp_path / "whole")
    for path in sorted((tmp_path / "whole" / "power-ema").iterdir()):
        assert (tmp_path / "parts" / "power-ema" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_loss_curve_is_that_of_one_rank_to_a_millionth(
    server: ForkServer, data: list[str], tmp_path: Path, ranks: int
) -> None:
    for number in (1, ranks):
        done(server, command(data, tmp_path / str(number), CURVE, "--lr", "1e-4", "--warmup", "2"), number)
    alone, together = step_losses(tmp_path / "1"), step_losses(tmp_path / str(ranks))
    assert len(alone) == CURVE
    assert alone[-1] < 0.95 * alone[0]
    assert together == pytest.approx(alone, rel=1e-6)
