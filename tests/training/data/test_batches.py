from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import DatasetError
from training.data.collate import Batch, Sampler, collate
from training.data.manifest import Manifest, open_manifest
from training.data.plan import Plan, Policy
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Reader

Write = Callable[..., Any]


@pytest.fixture
def manifest(write_features: Write) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4})
    return open_manifest(str(made.latents), str(made.text))


def sampler_of(manifest: Manifest, caption_drop: float = 0.0, seed: int = 3) -> Sampler:
    return Sampler(manifest, Reader(manifest), seed, caption_drop, timesteps=1000)


def test_latents_are_drawn_from_the_posterior_shifted_and_scaled(manifest: Manifest) -> None:
    sampler = sampler_of(manifest)
    mean, std = sampler.reader.latent(0).astype(np.float32)
    draws = np.stack([sampler.sample(0, visit).latent for visit in range(400)]) / np.float32(0.18215)
    assert np.abs(draws.mean(0) - mean).max() < 5 * 0.1 / 20
    assert np.abs(draws.std(0) / std - 1).max() < 0.25


def test_a_visit_can_be_repeated_and_the_next_differs(manifest: Manifest) -> None:
    once, again, following = (sampler_of(manifest).sample(4, visit) for visit in (2, 2, 3))
    assert np.array_equal(once.latent, again.latent)
    assert np.array_equal(once.noise, again.noise)
    assert once.timestep == again.timestep
    assert not np.array_equal(once.noise, following.noise)
    assert not np.array_equal(once.latent, following.latent)
    assert not np.array_equal(once.noise, (once.latent - once.latent.mean()) / once.latent.std())


def test_a_dropped_caption_becomes_the_null_embedding_with_its_own_length(manifest: Manifest) -> None:
    batch = collate([sampler_of(manifest, caption_drop=1.0).sample(row, 0) for row in range(4)], pin=False)
    assert batch.text_lengths.tolist() == [1] * 4
    assert np.array_equal(batch.text[2, :1].numpy(), manifest.null_text)
    assert not batch.text[:, 1:].any()


def test_captions_are_dropped_at_the_rate_asked_for(manifest: Manifest) -> None:
    sampler = sampler_of(manifest, caption_drop=0.1)
    dropped = [sampler.sample(0, visit).text is manifest.null_text for visit in range(3000)]
    assert 0.08 < np.mean(dropped) < 0.12


def test_text_is_padded_with_zeros_to_a_multiple_of_eight(manifest: Manifest) -> None:
    sampler = sampler_of(manifest)
    rows = np.flatnonzero(manifest.bucket == 1)[:5].tolist()
    batch = collate([sampler.sample(row, 0) for row in rows], pin=False)
    assert batch.text.shape == (5, -(-int(manifest.tokens[rows].max()) // 8) * 8, 32)
    for i, row in enumerate(rows):
        tokens = int(manifest.tokens[row])
        assert batch.text_lengths[i] == tokens
        assert np.array_equal(batch.text[i, :tokens].numpy(), sampler.reader.text(row))
        assert not batch.text[i, tokens:].any()
    assert batch.latents.shape == batch.noise.shape == (5, 4, 8, 8)
    assert batch.sizes.tolist() == [[128.0, 128.0, 1.0]] * 5


def batches_of(manifest: Manifest, share: Share, steps: range, threads: int = 2, depth: int = 2) -> list[Batch]:
    plan = Plan(manifest.bucket, manifest.digest, 0, Policy(6))
    loader = Prefetcher(sampler_of(manifest, 0.2), micro_batches(plan, share, steps), threads, depth, pin=False)
    batches = list(loader)
    loader.close()
    return batches


def test_the_global_batch_is_the_same_for_any_world_size_and_accumulation(manifest: Manifest) -> None:
    whole = batches_of(manifest, Share(0, 1, 1), range(7))
    for world, accumulation in ((2, 1), (1, 3), (3, 2), (2, 2)):
        parts = [batches_of(manifest, Share(rank, world, accumulation), range(7)) for rank in range(world)]
        for step in range(7):
            pieces = [parts[r][step * accumulation + m] for m in range(accumulation) for r in range(world)]
            for name in ("latents", "noise", "timesteps", "text_lengths", "sizes"):
                assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(whole[step], name))


def test_threads_and_depth_do_not_change_the_batches(manifest: Manifest) -> None:
    expected = batches_of(manifest, Share(0, 1, 2), range(5), threads=1, depth=1)
    for batch, same in zip(expected, batches_of(manifest, Share(0, 1, 2), range(5), threads=8, depth=6), strict=True):
        assert torch.equal(batch.latents, same.latents)
        assert torch.equal(batch.text, same.text)


def test_batches_are_read_ahead_but_never_more_than_the_depth(manifest: Manifest) -> None:
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for places in micro_batches(Plan(manifest.bucket, "d", 0, Policy(4)), Share(0, 1, 1), range(20)):
            taken += 1
            yield places

    loader = Prefetcher(sampler_of(manifest), counted(), threads=2, depth=3, pin=False)
    for consumed, _ in enumerate(loader, 1):
        assert taken == min(consumed + 3, 20)
    loader.close()


def test_a_damaged_sample_stops_the_loop_with_its_name(manifest: Manifest) -> None:
    for path in manifest.latents.paths:
        with open(path, "r+b") as file:
            content = file.read()
            file.seek(0)
            file.write(bytes(len(content)))
    loader = Prefetcher(sampler_of(manifest), iter([[(3, 0)]]), threads=2, depth=2, pin=False)
    with pytest.raises(DatasetError, match=manifest.name(3)):
        next(iter(loader))
    loader.close()
