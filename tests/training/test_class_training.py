import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import configured, run
from training_runs import saved, step_losses

from schemas.errors import DatasetError, UserError
from training.config import OptimiserConfig, RunConfig
from training.data.manifest import Manifest, open_mixture
from training.data.mixture import Share, Source
from training.data.plan import Plan
from training.data.policy import Policy
from training.data.prefetch import Prefetcher, micro_batches
from training.data.prefetch import Share as RankShare
from training.data.reader import Reader
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.trainer import train
from training.weights.files import load_dit_weights

MODEL = DitConfig(depth=2, hidden=32, heads=2, classes=5, position_base=4)
CPU = torch.device("cpu")


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    return labelled(write_features(buckets={(64, 64): 10, (32, 96): 5}, classes=5))


def labelled(features: Any) -> Manifest:
    return open_mixture([Source("", str(features.latents), ())])


def configure(manifest: Manifest, out: Path, steps: int = 6, **changes: Any) -> RunConfig:
    config = configured(manifest, out, steps, sources=(Source("", "latents", ()),), **changes)
    policy = Policy(4, caption_drop=0.2, datasets=(Share(captions=()),))
    return dataclasses.replace(
        config, recipe=dataclasses.replace(config.recipe, model=MODEL, policy=policy, stage="pixel")
    )


def test_classes_are_learned_from_latents_alone(manifest: Manifest, tmp_path: Path) -> None:
    summary = train(configure(manifest, tmp_path / "run", steps=40, save_every=40), manifest, lambda _: None)
    assert summary.first_loss is not None
    assert summary.last_loss is not None
    assert summary.last_loss < 0.9 * summary.first_loss
    config, tensors, metadata = load_dit_weights(tmp_path / "run" / "weights" / "ema.safetensors")
    assert config == MODEL
    assert metadata["stage"] == "pixel"
    assert tensors["y_embedder.embedding_table.weight"].shape == (6, 32)


@pytest.mark.parametrize("broken_off", [1, 3])
def test_a_class_run_resumed_at_any_step_ends_bitwise_as_if_undisturbed(
    manifest: Manifest, tmp_path: Path, broken_off: int
) -> None:
    run(configure(manifest, tmp_path / "whole"), manifest)
    run(configure(manifest, tmp_path / "parts", steps=broken_off), manifest)
    said = run(configure(manifest, tmp_path / "parts"), manifest)
    assert f"going on from step {broken_off}" in said[0]
    assert saved(tmp_path / "parts", 6) == saved(tmp_path / "whole", 6)
    assert step_losses(tmp_path / "parts") == step_losses(tmp_path / "whole")


def labels_of(manifest: Manifest, drop: float, share: RankShare) -> dict[int, int]:
    """The label that each sample was given in the first two steps, by its number."""
    plan = Plan(manifest.population(), 0, Policy(6, caption_drop=drop, datasets=(Share(captions=()),)))
    work = micro_batches(plan, share, range(2))
    stream = Prefetcher(manifest, Reader(manifest), work, 1, 1, CPU)
    given = {}
    for features in stream:
        assert features.text.shape[1:] == (0, 0)
        given |= dict(zip(features.samples.tolist(), features.labels.tolist(), strict=True))
    stream.close()
    return given


def test_labels_come_with_their_samples_and_are_dropped_by_sample_whatever_the_ranks(manifest: Manifest) -> None:
    truth = dict(zip(manifest.sample.view("int64").tolist(), manifest.label.tolist(), strict=True))
    assert all(truth[sample] == label for sample, label in labels_of(manifest, 0.0, RankShare(0, 1, 6)).items())
    dropped = labels_of(manifest, 0.5, RankShare(0, 1, 6))
    assert {label for sample, label in dropped.items() if label != truth[sample]} == {-1}
    assert 0 < sum(label == -1 for label in dropped.values()) < len(dropped)
    ranks = [labels_of(manifest, 0.5, RankShare(rank, 2, 2)) for rank in range(2)]
    assert ranks[0] | ranks[1] == dropped


def test_a_dropped_class_trains_the_null_class_and_no_other(manifest: Manifest, tmp_path: Path) -> None:
    still = OptimiserConfig(lr=1e-3, warmup_steps=1, clip=1.0, weight_decay=0.0)
    config = configure(manifest, tmp_path / "run", steps=6)
    policy = dataclasses.replace(config.recipe.policy, caption_drop=1.0)
    run(
        dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, policy=policy, optimiser=still)), manifest
    )
    table = "y_embedder.embedding_table.weight"
    torch.manual_seed(0)
    before = DiT(MODEL).state_dict()[table]
    after = load_dit_weights(tmp_path / "run" / "weights" / "raw.safetensors")[1][table]
    assert torch.equal(after[:5], before[:5])
    assert not torch.equal(after[5], before[5])


def test_data_without_labels_is_refused_with_the_first_sample_named(
    write_features: Callable[..., Any], tmp_path: Path
) -> None:
    bare = labelled(write_features())
    with pytest.raises(DatasetError, match=r"12 of 12 samples have no label from 0 to 4 \(the first, shard-0/"):
        run(configure(bare, tmp_path / "run"), bare)
    more = labelled(write_features(folder="more", classes=7))
    with pytest.raises(DatasetError, match=r"2 of 12 samples have no label .* has label"):
        run(configure(more, tmp_path / "run"), more)


def test_conditions_of_the_other_kind_are_refused(
    manifest: Manifest, write_features: Callable[..., Any], tmp_path: Path
) -> None:
    config = configure(manifest, tmp_path / "run")
    pixart = PixArtConfig(depth=2, hidden=32, heads=2, caption_channels=32)
    with pytest.raises(UserError, match="a PixArt trains on text"):
        run(dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, model=pixart)), manifest)
    features = write_features(folder="text", classes=5)
    with_text = open_mixture([Source("", str(features.latents), (str(features.text),))])
    with pytest.raises(UserError, match="Leave out --text"):
        run(configure(with_text, tmp_path / "run"), with_text)
    with pytest.raises(DatasetError, match="dataset bare has no text, others have"):
        open_mixture(
            [Source("bare", str(features.latents), ()), Source("b", str(features.latents), (str(features.text),))]
        )


def test_batches_of_so_many_tokens_count_latents_alone(manifest: Manifest) -> None:
    plan = Plan(manifest.population(), 0, Policy(0, 64, datasets=(Share(captions=()),)))
    assert plan.sizes() == (3, 5)  # of 16 and 12 tokens
    with pytest.raises(UserError, match="but there is no text"):
        Plan(manifest.population(), 0, Policy(0, 64, "text", datasets=(Share(captions=()),)))
