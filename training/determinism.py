"""The same bits from the same start on a GPU, too: which of torch's algorithms a run may use.

A CPU needs none of this. On CUDA some kernels add in the order in which threads happen to come. Under the flag torch's
attention does not: flash, padded and packed, takes the backward pass that adds in order, and the memory-efficient
kernel no longer splits the keys; cuDNN's has no such form and is left out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from schemas.errors import UserError
from training.config import RunConfig

WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES: Final = (":4096:8", ":16:8")
"""Those under which cuBLAS promises the same bits (its manual, "Results reproducibility"); the first is the faster."""

_ORDERED: Final = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def deterministic(config: RunConfig) -> Iterator[None]:
    """Within it, the process computes as `config.deterministic` asks; then as before. Enter it before CUDA is used.

    Raises `UserError` for what cannot be had under the flag.
    """
    if not config.deterministic:
        yield
        return
    _check(config)
    if config.device != "cpu" and torch.cuda.is_available():
        _fix_workspace()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    fastest = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which picks by time, another kernel at another start
    try:
        with sdpa_kernel(_ORDERED):
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.backends.cudnn.benchmark = fastest


def _check(config: RunConfig) -> None:
    if config.attention == "xformers":
        raise UserError(
            "--deterministic, but the backward pass of --attention xformers adds in no certain order. "
            "Use --attention sdpa or varlen."
        )
    if config.compile:
        raise UserError(
            "--deterministic, but --compile may pick other kernels at another start, by their time. Leave one of them "
            "out."
        )


def _fix_workspace() -> None:
    """cuBLAS reads the variable once, when it starts."""
    found = os.environ.get(WORKSPACE)
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch gives it no types
    if found is None and not started:
        os.environ[WORKSPACE] = _WORKSPACES[0]
    elif found not in _WORKSPACES:
        raise UserError(
            f"--deterministic needs {WORKSPACE}={_WORKSPACES[0]} from the start, and it is {found or 'not set'}. "
            f"Set it in the environment and start again."
        )
