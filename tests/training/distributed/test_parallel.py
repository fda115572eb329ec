"""Two ranks on a CPU: what FSDP2 splits is trained, saved and gone on with as what DDP keeps whole."""

import dataclasses
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import configured
from torch import Tensor, nn
from training_runs import step_losses

from schemas.errors import UserError
from training.config import EmaConfig, RunConfig
from training.data.manifest import Manifest, open_manifest
from training.data.policy import Policy
from training.distributed.world import World
from training.execution import set_up, shapes_of
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.trainer import train

ROOT = Path(__file__).parents[3]
MODEL = PixArtConfig(depth=2, hidden=36, heads=2, caption_channels=20, text_tokens=12, position_base=4)
ALONE = World(0, 1, torch.device("cpu"), None)


@pytest.fixture
def features(write_features: Callable[..., Any]) -> Any:
    return write_features(buckets={(64, 64): 9, (32, 96): 5}, dim=20)


@pytest.fixture
def manifest(features: Any) -> Manifest:
    return open_manifest(str(features.latents), str(features.text))


def configure(manifest: Manifest, out: Path, **changes: Any) -> RunConfig:
    """On each of two ranks a step is two micro-steps of two samples."""
    config = configured(manifest, out, 4, micro_batch=3, save_every=2, threads=0, prefetch=1)
    policy, ema = Policy(8, caption_drop=0.1), EmaConfig(power=(0.1,))
    recipe = dataclasses.replace(config.recipe, model=MODEL, policy=policy, ema=ema)
    return dataclasses.replace(config, recipe=recipe, **changes)


def on_ranks(folder: Path, jobs: Sequence[tuple[Any, ...]]) -> None:
    (folder / "jobs").write_bytes(pickle.dumps(list(jobs)))
    script = Path(__file__).parents[2] / "support" / "ranks_child.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "jobs")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr


def assert_same_checkpoints(a: Path, b: Path, step: int) -> None:
    """Every tensor of every file, whole on disk, within what the order of sums makes of it."""
    folders = [run / "checkpoints" / f"step-{step:08d}" for run in (a, b)]
    names = sorted(path.name for path in folders[0].glob("*.safetensors"))
    assert len(names) == 4  # weights, two averages, optimiser
    for name in names:
        left, right = (load_file(folder / name) for folder in folders)
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key], right[key], rtol=1e-3, atol=2e-5, msg=f"{name} {key}")


def test_a_sharded_run_is_one_of_whole_copies_and_goes_on_as_either(
    features: Any, manifest: Manifest, tmp_path: Path
) -> None:
    data = (str(features.latents), str(features.text))
    alone = configure(manifest, tmp_path / "alone")
    train(alone, manifest, lambda line: None)
    # What the sharded run goes on from: the first half of the run of one process.
    shutil.copytree(tmp_path / "alone", tmp_path / "taken-over")
    shutil.rmtree(tmp_path / "taken-over/checkpoints/step-00000004")
    runs = {
        "ddp": {},
        "fsdp": {"shard": True},
        "taken-over": {"shard": True, "checkpoint_activations": True},
    }
    jobs = [(2, "trained", (configure(manifest, tmp_path / name, **change), *data)) for name, change in runs.items()]
    on_ranks(tmp_path, jobs)
    # And back: one process goes on from the first half of a sharded run.
    shutil.copytree(tmp_path / "fsdp", tmp_path / "given-back")
    shutil.rmtree(tmp_path / "given-back/checkpoints/step-00000004")
    train(configure(manifest, tmp_path / "given-back"), manifest, lambda line: None)
    expected = step_losses(tmp_path / "ddp")
    assert len(expected) == 4
    for name in ("alone", "fsdp", "taken-over", "given-back"):
        assert step_losses(tmp_path / name)[-len(expected) :] == pytest.approx(expected, rel=1e-6), name
        assert_same_checkpoints(tmp_path / "ddp", tmp_path / name, 4)


def test_a_gradient_that_one_rank_alone_finds_not_finite_is_skipped_by_all(tmp_path: Path) -> None:
    on_ranks(tmp_path, [(2, "skipping", (MODEL, str(tmp_path / "states")))])
    first, second, third = torch.load(tmp_path / "states", weights_only=True)
    assert first["sharded"]
    assert math.isfinite(first["norm"])
    assert not math.isfinite(second["norm"])
    for part in ("weights", "average", "moments"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part]), part
        assert any(not torch.equal(second[part][name], third[part][name]) for name in second[part]), part
    assert first["moments"].keys() == third["moments"].keys()


def test_what_cannot_be_done_here_is_told_in_one_line(manifest: Manifest, tmp_path: Path) -> None:
    pixart, dit = PixArt(MODEL), DiT(DitConfig(depth=1, hidden=36, heads=2))
    with pytest.raises(UserError, match="runs on CUDA only"):
        set_up(pixart, configure(manifest, tmp_path, attention="varlen"), manifest, ALONE)
    cuda, low = World(0, 1, torch.device("cuda"), None), configure(manifest, tmp_path, attention="varlen")
    low = dataclasses.replace(low, recipe=dataclasses.replace(low.recipe, precision="bf16"))
    with pytest.raises(UserError, match="a DiT has none"):
        set_up(dit, low, manifest, cuda)
    assert set_up(pixart, low, manifest, cuda) == []
    assert pixart.attention == "varlen"


def test_the_shapes_are_counted_from_buckets_texts_and_batches(manifest: Manifest, tmp_path: Path) -> None:
    config = configure(manifest, tmp_path, micro_batch=4)
    assert shapes_of(config, manifest, ALONE) == 2  # text of up to 12 tokens has one padded length
    longer = dataclasses.replace(manifest, facts=dataclasses.replace(manifest.facts, max_tokens=120))
    assert shapes_of(config, longer, ALONE) == 2 * 6
    assert shapes_of(dataclasses.replace(config, micro_batch=3), longer, ALONE) == 2 * 6 * 2  # of 2 and 3 samples
    by_tokens = dataclasses.replace(config.recipe, policy=Policy(0, tokens_per_batch=900))
    assert shapes_of(dataclasses.replace(config, recipe=by_tokens), longer, ALONE) == 2 * 6 * 4
    classes = dataclasses.replace(config.recipe, model=DitConfig(depth=1, hidden=36, heads=2))
    assert shapes_of(dataclasses.replace(config, recipe=classes), longer, ALONE) == 2


@pytest.mark.parametrize(("precision", "computed"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_pass_that_settles_the_order_of_sums_is_computed_as_training_is(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, computed: torch.dtype
) -> None:
    """Packed attention takes bfloat16 alone, in this pass too."""
    tried: list[torch.dtype] = []

    def trying(model: nn.Module, world: World, try_out: Callable[[nn.Module], Tensor]) -> nn.Module:
        tried.append(try_out(model).dtype)
        return model

    monkeypatch.setattr("training.trainer.over_ranks", trying)
    config = configure(manifest, tmp_path / "run")
    train(
        dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, precision=precision)),
        manifest,
        lambda line: None,
    )
    assert tried == [computed]
