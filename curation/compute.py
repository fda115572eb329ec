"""Where and in which arithmetic a feature model runs, held to settings that give the same bits each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from schemas.errors import UserError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def default_dtype(name: str, device: str) -> str:
    """`name`, or for "auto" what suits the device: float32 on a CPU, else bfloat16, which has float32's range."""
    if name != "auto":
        return name
    return "float32" if device.startswith("cpu") else "bfloat16"


@dataclass(frozen=True, slots=True)
class Compute:
    """`device` is where; `dtype` and `cpu_threads` change bits, so they belong in the fingerprint.

    `cpu_threads` is the number of threads of one model on a CPU. Convolutions split their sums by threads, so that
    another number moves the last bits; it is stated here and not taken from the machine, or a Ray worker (one CPU) and
    an inline run (all of them) would write different bytes.
    """

    device: str = "cpu"
    dtype: str = "float32"
    cpu_threads: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype}: unknown; choose from {', '.join(DTYPES)}.")
        if self.cpu_threads < 1:
            raise UserError(f"--cpu-threads {self.cpu_threads}: must be at least 1.")

    @property
    def config(self) -> dict[str, Any]:
        """What of it changes the output."""
        return {"dtype": self.dtype, "cpu_threads": self.cpu_threads}

    def require_device(self) -> torch.device:
        """The device. Raises `UserError` if this process does not have it."""
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        # torch says it in three ways: no such device, no card, a build without CUDA, a device without storage.
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"--device {self.device}: not usable here ({reason}). Use --device cpu, or run where there is one."
            ) from None
        return device


@contextmanager
def repeatable(compute: Compute) -> Iterator[None]:
    """Within the block: no gradients, no autocast, true float32 (no TF32), no algorithm chosen by a race, and
    `compute.cpu_threads` threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(compute.cpu_threads)
    try:
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(compute.device).type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
