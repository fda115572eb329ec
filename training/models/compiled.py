"""Compilation of a model's blocks by torch.compile, for a closed set of shapes.

Blocks are compiled one by one, and all blocks of a kind share what was compiled for a shape: it costs as much for 28
blocks as for one, and whatever else happens to a block (sharding, computing it anew) stays outside.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

_STATIC_SHAPES: Final = 8
_VARIANTS: Final = (
    8  # of a shape, at most: with and without gradient, compressed or not, another size of the last batch
)


def compile_blocks(model: nn.Module, shapes: int, backend: str | Callable[..., Any] = "inductor") -> bool:
    """Compile each of `model.blocks` in place. Whether for each shape on its own.

    shapes: how many shapes of picture and text there will be. Up to 8 are compiled each for itself, at its first use;
        more of them share one program with sizes left open, which costs a little speed and not an hour.
    backend: as torch.compile takes it.

    A shape that cannot be compiled, or one too many, is an error of torch's: nothing falls back to eager execution.
    """
    static = shapes <= _STATIC_SHAPES
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _VARIANTS * shapes)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, _VARIANTS * shapes)
    limits.specialize_float = True  # the model's are constants, and open ones are compiled twice
    # Else two open sizes that happen to be equal at first are taken to be equal for ever.
    torch.fx.experimental._config.use_duck_shape = False
    blocks = model.get_submodule("blocks")
    for block in blocks.children():
        compiled = torch.compile(block.forward, backend=backend, fullgraph=True, dynamic=not static)
        # The instance's own `forward`, which a module calls inside its hooks.
        block.__dict__["forward"] = compiled
    return static
