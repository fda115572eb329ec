from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data.choices import DROPPED
from training.data.collate import Features
from training.data.draws import Batch, draw
from training.data.manifest import Manifest, open_manifest
from training.data.plan import GlobalBatch, Plan
from training.data.policy import Policy
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Reader

Write = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture
def manifest(write_features: Write) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4})
    return open_manifest(str(made.latents), str(made.text))


def uses_of(manifest: Manifest, rows: list[int], visits: list[int] | None = None, dropped: bool = False) -> GlobalBatch:
    count = len(rows)
    variants = np.full(count, DROPPED if dropped else 0, np.int8)
    facts = manifest.sample[rows], variants, np.zeros(count, np.bool_)
    return GlobalBatch(int(manifest.bucket[rows[0]]), np.array(rows), np.array(visits or [0] * count), *facts, count)


def read(manifest: Manifest, work: Iterator[GlobalBatch], threads: int = 2, depth: int = 2) -> list[Features]:
    """Copies of all batches, since their memory is used again."""
    loader = Prefetcher(manifest, Reader(manifest), work, threads, depth, CPU)
    copies = [copied(features) for features in loader]
    loader.close()
    return copies


def copied(features: Features) -> Features:
    tensors = {f.name: getattr(features, f.name) for f in fields(features)}
    return replace(features, **{name: t.clone() for name, t in tensors.items() if isinstance(t, Tensor)})


def equal(a: Features, b: Features) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def drawn(manifest: Manifest, rows: list[int], visits: list[int] | None = None) -> Batch:
    (features,) = read(manifest, iter([uses_of(manifest, rows, visits)]))
    return draw(features, manifest.facts, 3, lambda uniform: (uniform * 1000).long())


def test_a_batch_holds_what_the_reader_gives_for_each_row(manifest: Manifest) -> None:
    rows, reader = np.flatnonzero(manifest.bucket == 1)[[4, 0, 3, 1, 2]].tolist(), Reader(manifest)
    (features,) = read(manifest, iter([uses_of(manifest, rows, [5, 0, 1, 2, 3])]))
    assert features.text.shape == (5, 16, 32)  # of at most 12 tokens
    assert features.posterior.shape == (5, 2, 4, 8, 8)
    for i, row in enumerate(rows):
        tokens = int(manifest.tokens[row, 0])
        assert features.text_lengths[i] == tokens
        assert np.array_equal(features.text[i, :tokens].numpy(), reader.text(row))
        assert not features.text[i, tokens:].any()
        assert np.array_equal(features.posterior[i].numpy(), reader.latent(row))
    assert features.sizes.tolist() == [[128.0, 128.0, 1.0]] * 5
    assert features.weights.tolist() == [1.0] * 5
    assert features.visits.tolist() == [5, 0, 1, 2, 3]
    assert np.array_equal(features.samples.numpy().view(np.uint64), manifest.sample[rows])


def test_memory_that_is_used_again_leaves_nothing_of_the_batch_before(manifest: Manifest) -> None:
    by_length = np.argsort(manifest.tokens[:, 0], kind="stable")[::-1].tolist()
    work = [uses_of(manifest, [row]) for row in by_length]
    for features, again in zip(read(manifest, iter(work), threads=0), work, strict=True):
        (alone,) = read(manifest, iter([again]))
        assert equal(features, alone)


def test_latents_are_drawn_from_the_posterior_shifted_and_scaled(manifest: Manifest) -> None:
    mean, std = Reader(manifest).latent(0).astype(np.float32)
    draws = drawn(manifest, [0] * 400, list(range(400))).latents.numpy() / np.float32(0.18215)
    assert np.abs(draws.mean(0) - mean).max() < 5 * 0.1 / 20
    assert np.abs(draws.std(0) / std - 1).max() < 0.25


def test_a_visit_can_be_repeated_and_the_next_differs(manifest: Manifest) -> None:
    once, again, following = (drawn(manifest, [4], [visit]) for visit in (2, 2, 3))
    assert torch.equal(once.latents, again.latents)
    assert torch.equal(once.noise, again.noise)
    assert torch.equal(once.timesteps, again.timesteps)
    assert not torch.equal(once.noise, following.noise)
    assert not torch.equal(once.latents, following.latents)
    assert not torch.equal(once.noise, (once.latents - once.latents.mean()) / once.latents.std())


def test_a_dropped_caption_becomes_the_null_embedding_with_its_own_length(manifest: Manifest) -> None:
    rows = np.flatnonzero(manifest.bucket == 1)[:4].tolist()
    (features,) = read(manifest, iter([uses_of(manifest, rows, dropped=True)]))
    assert features.text_lengths.tolist() == list(features.lengths_on_host) == [1] * 4
    assert np.array_equal(features.text[2, :1].numpy(), manifest.null_text)
    assert not features.text[:, 1:].any()


def batches_of(manifest: Manifest, share: Share, steps: range, threads: int = 2, depth: int = 2) -> list[Features]:
    plan = Plan(manifest.population(), 0, Policy(6, caption_drop=0.2))
    return read(manifest, micro_batches(plan, share, steps), threads, depth)


def test_the_global_batch_is_the_same_for_any_world_size_and_accumulation(manifest: Manifest) -> None:
    whole = batches_of(manifest, Share(0, 1, 6), range(7))
    for world, micro_batch in ((2, 3), (1, 2), (3, 1), (2, 2)):
        parts = [batches_of(manifest, Share(rank, world, micro_batch), range(7)) for rank in range(world)]
        accumulation = -(-6 // (world * micro_batch))
        for step in range(7):
            pieces = [parts[r][step * accumulation + m] for m in range(accumulation) for r in range(world)]
            for name in ("posterior", "samples", "visits", "text_lengths", "sizes"):
                assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(whole[step], name))
            assert {piece.whole for piece in pieces} == {6}


@pytest.mark.parametrize(("threads", "depth"), [(0, 1), (1, 1), (4, 2), (8, 6)])
def test_threads_and_depth_do_not_change_the_batches(manifest: Manifest, threads: int, depth: int) -> None:
    expected = batches_of(manifest, Share(0, 1, 3), range(5), threads=1, depth=1)
    for batch, same in zip(expected, batches_of(manifest, Share(0, 1, 3), range(5), threads, depth), strict=True):
        assert equal(batch, same)


def test_batches_are_read_ahead_but_never_more_than_the_depth(manifest: Manifest) -> None:
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for uses in micro_batches(Plan(manifest.population(), 0, Policy(4)), Share(0, 1, 4), range(20)):
            taken += 1
            yield uses

    loader = Prefetcher(manifest, Reader(manifest), counted(), threads=2, depth=3, device=CPU)
    for consumed, _ in enumerate(loader, 1):
        assert taken == min(consumed + 3, 20)
    loader.close()


@pytest.mark.parametrize("threads", [0, 3])
def test_a_damaged_sample_is_named_and_weighs_nothing_and_the_others_are_as_before(
    manifest: Manifest, threads: int
) -> None:
    rows = np.flatnonzero(manifest.bucket == 1)[:6].tolist()
    work = [uses_of(manifest, rows), uses_of(manifest, rows[:2])]
    before = read(manifest, iter(work), threads=threads)
    places = manifest.latents
    with open(places.paths[places.file[rows[4]]], "r+b") as file:
        file.seek(int(places.offset[rows[4]]) + 200)
        file.write(b"damaged")
    first, second = read(manifest, iter(work), threads=threads)
    assert [(fault.at, fault.damaged) for fault in first.faults] == [(4, True)]
    assert manifest.name(rows[4]) in first.faults[0].message
    assert first.weights.tolist() == [1, 1, 1, 1, 0, 1]
    assert not first.posterior[4].any()
    assert not first.text[4].any()
    assert first.text_lengths[4] == 1
    others = [0, 1, 2, 3, 5]
    assert torch.equal(first.posterior[others], before[0].posterior[others])
    assert torch.equal(first.text[others], before[0].text[others])
    assert equal(second, before[1])


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_on_the_cpu(manifest: Manifest) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plan, cuda = Plan(manifest.population(), 0, Policy(6, caption_drop=0.2)), torch.device("cuda")
    expected = batches_of(manifest, Share(0, 1, 6), range(20))
    work = micro_batches(plan, Share(0, 1, 6), range(20))
    loader = Prefetcher(manifest, Reader(manifest), work, threads=4, depth=3, device=cuda)
    for features, same in zip(loader, expected, strict=True):
        torch.cuda._sleep(10_000_000)  # the host runs ahead, so memory that is given back too early would show
        found = [getattr(features, f.name) for f in fields(features)]
        moved = [value.cpu() if isinstance(value, Tensor) else value for value in found]
        assert equal(type(features)(*moved), same)
    loader.close()
