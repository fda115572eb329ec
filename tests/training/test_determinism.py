import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import configured
from training_runs import saved, step_losses

from schemas.errors import UserError
from training.config import RunConfig
from training.data.manifest import Manifest
from training.determinism import WORKSPACE, deterministic
from training.trainer import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(manifest: Manifest, tmp_path: Path) -> RunConfig:
    return configured(manifest, tmp_path / "strict", deterministic=True)


@pytest.fixture
def cuda(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The same on a GPU that nobody has used yet; there is none in truth."""
    monkeypatch.setenv(WORKSPACE, "restored")
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    return configured_on(config, "auto")


def configured_on(config: RunConfig, device: str, **changes: Any) -> RunConfig:
    return replace(config, device=device, **changes)


def settings() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.cudnn_sdp_enabled(),
    )


def test_the_settings_hold_within_and_are_as_before_afterwards(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cudnn.benchmark", True)
    before = settings()
    with contextlib.suppress(KeyError), deterministic(config):
        assert settings() == (True, False, False, False)
        raise KeyError
    assert settings() == before == (False, False, True, True)
    with deterministic(configured_on(config, "cpu", deterministic=False)):
        assert settings() == before


def test_a_deterministic_run_goes_on_bitwise_and_on_a_cpu_is_what_it_is_without(
    config: RunConfig, manifest: Manifest, tmp_path: Path
) -> None:
    held: list[bool] = []
    said: list[str] = []

    def say(line: str) -> None:
        held.append(torch.are_deterministic_algorithms_enabled())
        said.append(line)

    train(configured_on(config, "cpu", steps=2), manifest, say)
    train(config, manifest, say)
    assert all(held)
    assert not torch.are_deterministic_algorithms_enabled()
    assert sum("deterministic algorithms alone" in line for line in said) == 2
    train(configured(manifest, tmp_path / "plain"), manifest, lambda _: None)
    assert saved(tmp_path / "strict", 6) == saved(tmp_path / "plain", 6)
    assert step_losses(tmp_path / "strict") == step_losses(tmp_path / "plain")


def test_the_flag_is_no_part_of_the_recipe(config: RunConfig, manifest: Manifest) -> None:
    train(configured_on(config, "cpu", steps=2, deterministic=False), manifest, lambda _: None)
    assert train(config, manifest, lambda _: None).steps == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"attention": "xformers"}, "--attention xformers"), ({"compile": True}, "--compile may pick")],
)
def test_what_is_not_deterministic_is_refused(config: RunConfig, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said), deterministic(configured_on(config, "cpu", **changes)):
        raise AssertionError


def test_cublas_is_given_a_workspace_before_it_starts(cuda: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with deterministic(cuda):
        assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with deterministic(cuda):
        assert os.environ[WORKSPACE] == ":16:8"


def test_a_workspace_that_comes_too_late_or_promises_nothing_is_refused(
    cuda: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(UserError, match=r"it is not set\. Set it in the environment"), deterministic(cuda):
        raise AssertionError
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(UserError, match="it is :0:0"), deterministic(cuda):
        raise AssertionError
    with deterministic(configured_on(cuda, "cpu")):
        assert os.environ[WORKSPACE] == ":0:0"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
def test_a_gpu_ends_with_the_same_bits_broken_off_or_not(
    write_features: Callable[..., Any], tmp_path: Path, attention: str
) -> None:
    made = write_features(buckets={(64, 64): 9, (32, 96): 5})
    data = ("--latents", str(made.latents), "--text", str(made.text), "--manifest-cache", str(tmp_path / "joined"))
    small = ("--model", "tiny/2", "--global-batch", "8", "--micro-batch", "4", "--lr", "1e-3", "--warmup", "2")
    how = ("--device", "cuda", "--precision", "bf16", "--attention", attention, "--deterministic", "--log-every", "2")

    def run(out: Path, steps: int) -> None:  # in a process of its own, where cuBLAS has not started yet
        command = (sys.executable, "-m", "pipelines.train", *data, *small, *how, "--out", str(out))
        subprocess.run((*command, "--steps", str(steps)), cwd=ROOT, check=True, timeout=200)

    run(tmp_path / "whole", 20)
    run(tmp_path / "parts", 7)
    run(tmp_path / "parts", 20)
    assert saved(tmp_path / "parts", 20) == saved(tmp_path / "whole", 20)
    assert step_losses(tmp_path / "parts") == step_losses(tmp_path / "whole")
