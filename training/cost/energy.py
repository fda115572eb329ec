"""How much energy a device took, where its driver tells: nothing here is estimated from a power rating.

NVIDIA GPUs count their joules (Volta and later; NVML, by the package nvidia-ml-py, the extra `energy`). CPUs of Intel
and AMD count those of their packages under /sys/class/powercap, which most systems let only root read: the whole
package, whatever else runs on it.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

POWERCAP: Final = Path("/sys/class/powercap")
_MOST_WATTS: Final = 1000.0  # of a CPU package: how soon its counter may come round
_MILLIJOULES: Final = 1e3
_MICROJOULES: Final = 1e6


class EnergyMeter(Protocol):
    """Joules since it was made. `source` says who tells, or why nobody does."""

    source: str

    def read(self) -> float | None:
        """The joules so far, None if they are not known. To be called every few minutes, as counters come round."""


@dataclass(slots=True)
class NotTold:
    """No meter."""

    source: str

    def read(self) -> float | None:
        """None."""
        return None


class Nvml:
    """The energy counter of one NVIDIA GPU."""

    source = "NVML"

    def __init__(self, joules: Callable[[], float]) -> None:
        self._joules, self._first = joules, joules()

    def read(self) -> float | None:
        """See `EnergyMeter`."""
        return self._joules() - self._first


class Rapl:
    """The energy counters of the CPU packages, each a directory with `energy_uj` and `max_energy_range_uj`.

    A counter that came round is taken on. After a pause in which it may have done so twice nothing is known any more.
    """

    def __init__(self, packages: list[Path], now: Callable[[], float] = time.monotonic) -> None:
        self.source = "RAPL, whole CPU packages"
        self._now, self._packages = now, packages
        self._ranges = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        self._last, self._at = self._counters(), now()
        self._sum: float | None = 0.0

    def read(self) -> float | None:
        """See `EnergyMeter`."""
        counters, at = self._counters(), self._now()
        soonest = min(self._ranges) / _MICROJOULES / _MOST_WATTS
        if at - self._at > soonest:
            self._sum, self.source = None, f"not told: RAPL was not read for {at - self._at:.0f} s"
        if self._sum is not None:
            steps = [(new - old) % (top + 1) for new, old, top in zip(counters, self._last, self._ranges, strict=True)]
            self._sum += sum(steps) / _MICROJOULES
        self._last, self._at = counters, at
        return self._sum

    def _counters(self) -> list[int]:
        return [int((package / "energy_uj").read_text()) for package in self._packages]


def energy_meter(device: torch.device, first_on_machine: bool, powercap: Path = POWERCAP) -> EnergyMeter:
    """The meter of this process's GPU, or of the CPU, for which one process of a machine speaks."""
    if device.type == "cuda":
        return _nvml(device)
    if not first_on_machine:
        return NotTold("told by another process of the machine")
    packages = [path for path in sorted(powercap.glob("*-rapl:*")) if path.name.count(":") == 1]
    if not packages:
        return NotTold("not told: no RAPL counters on this machine")
    try:
        return Rapl(packages)
    except (OSError, ValueError) as error:
        return NotTold(f"not told: RAPL cannot be read ({_reason(error)})")


def _nvml(device: torch.device) -> EnergyMeter:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return NotTold("not told: nvidia-ml-py is not installed (pip install 'latentmill[energy]')")
    try:
        nvml.nvmlInit()
        # By its name, since NVML counts also the GPUs that CUDA_VISIBLE_DEVICES hides.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(name)
        return Nvml(lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / _MILLIJOULES)
    except (nvml.NVMLError, AttributeError) as error:
        return NotTold(f"not told: the driver does not ({_reason(error)})")


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
