import dataclasses
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from training.models.compiled import compile_blocks
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt

Build = Callable[[PixArtConfig], PixArt]
GRIDS, LENGTHS = ((8, 8), (16, 8), (8, 16), (12, 8)), (16, 32, 48)


class Counting:
    """A back-end of torch.compile that counts what it is asked to compile, and then uses a cheap one."""

    def __init__(self, name: str = "eager") -> None:
        self._name, self.programs = name, 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.programs += 1
        return lookup_backend(self._name)(graph, inputs)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """torch keeps what was compiled by the code of a block, and has one configuration, for the whole process."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch({}), torch.fx.experimental._config.patch({}):
        yield
    torch._dynamo.reset()


def batch(rows: int, columns: int, length: int, samples: int = 3) -> list[Tensor]:
    g = torch.Generator().manual_seed(rows * 1000 + columns * 100 + length)
    latents = torch.randn(samples, 4, rows, columns, generator=g)
    text = torch.randn(samples, length, 20, generator=g)
    lengths = torch.randint(1, length + 1, (samples,), generator=g)
    return [latents, torch.arange(samples), text, lengths]


def trained(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    model.zero_grad()
    out = model(*inputs)
    out.square().mean().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("change", "shapes", "programs"),
    [
        pytest.param({}, tuple(product(GRIDS[:2], LENGTHS[:2])), 4, id="each-shape"),
        pytest.param({}, tuple(product(GRIDS, LENGTHS)), 1, id="open-sizes"),
        pytest.param(
            {"compressed_layers": (1,), "qk_norm": True},
            tuple(product(GRIDS, LENGTHS)),
            2,
            id="two-kinds-of-block",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_after_each_shape_was_seen_once_nothing_is_compiled_again(
    small_config: PixArtConfig, build: Build, change: dict[str, Any], shapes: Any, programs: int
) -> None:
    model, backend = build(dataclasses.replace(small_config, depth=3, **change)), Counting()
    static = compile_blocks(model, len(shapes), backend)
    assert static == (len(shapes) <= 8)
    for (rows, columns), length in shapes:
        trained(model, batch(rows, columns, length))
    assert backend.programs == programs
    for (rows, columns), length in reversed(shapes):
        trained(model, batch(rows, columns, length))
    assert backend.programs == programs


def test_a_batch_of_another_size_needs_no_new_program_where_sizes_are_left_open(
    small_config: PixArtConfig, build: Build
) -> None:
    model, backend = build(small_config), Counting()
    compile_blocks(model, 100, backend)
    for samples in (16, 15, 3):  # 16 is also the length of the text
        trained(model, batch(8, 8, 16, samples))
    assert backend.programs == 1


@pytest.mark.parametrize(("shapes", "again"), [(1, True), pytest.param(100, False, marks=pytest.mark.slow)])
def test_what_is_compiled_gives_the_same_output_and_gradients(
    small_config: PixArtConfig, build: Build, shapes: int, again: bool
) -> None:
    plain, model = build(small_config), build(small_config)
    model.checkpoint_activations = again
    compile_blocks(model, shapes, Counting("aot_eager"))
    inputs = batch(8, 12, 16)
    for a, b in zip(trained(model, inputs), trained(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_names_and_blocks_are_as_before(small_config: PixArtConfig, build: Build) -> None:
    model = build(small_config)
    names = list(model.state_dict())
    compile_blocks(model, 1, "eager")
    assert list(model.state_dict()) == names


def test_a_dit_compiles_too() -> None:
    torch.manual_seed(0)
    model, backend = DiT(DitConfig(depth=3, hidden=48, heads=4, classes=5, position_base=4)), Counting()
    compile_blocks(model, 2, backend)
    for _ in range(2):
        for rows, columns in ((8, 8), (4, 16)):
            model(torch.randn(2, 4, rows, columns), torch.tensor([1, 2]), torch.tensor([0, 5])).sum().backward()
    assert backend.programs <= 2
