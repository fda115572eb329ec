import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from training.cost.energy import Rapl, energy_meter

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def package(root: Path, name: str, microjoules: int, top: int = 10**12) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{top}\n")
    return folder


def test_the_packages_of_a_cpu_are_added_up(tmp_path: Path) -> None:
    one, other = package(tmp_path, "intel-rapl:0", 5_000_000), package(tmp_path, "intel-rapl:1", 7_000_000)
    package(tmp_path, "intel-rapl:0:0", 1)  # a core's share of its package, which must not count twice
    meter = energy_meter(CPU, True, tmp_path)
    assert meter.source == "RAPL, whole CPU packages"
    assert meter.read() == 0
    (one / "energy_uj").write_text("8000000")
    (other / "energy_uj").write_text("11000000")
    assert meter.read() == pytest.approx(7)
    assert energy_meter(CPU, False, tmp_path).read() is None  # the machine is told once


def test_a_counter_that_came_round_is_taken_on_and_one_that_may_have_twice_is_not(tmp_path: Path) -> None:
    folder, clock = package(tmp_path, "intel-rapl:0", 9_000_000_000, top=10_000_000_000), Clock()  # 10 kJ
    meter = Rapl([folder], clock)
    clock.seconds = 9.0
    (folder / "energy_uj").write_text("1000000000")
    assert meter.read() == pytest.approx(2000, rel=1e-6)
    clock.seconds = 20.0  # 11 s: more than 10 kJ at 1000 W
    assert meter.read() is None
    assert meter.source == "not told: RAPL was not read for 11 s"
    clock.seconds = 21.0
    assert meter.read() is None


def test_a_cpu_that_does_not_tell_says_so(tmp_path: Path) -> None:
    meter = energy_meter(CPU, True, tmp_path)
    assert (meter.read(), meter.source) == (None, "not told: no RAPL counters on this machine")
    folder = package(tmp_path, "intel-rapl:0", 1)
    (folder / "energy_uj").unlink()
    (folder / "energy_uj").mkdir()  # unreadable, also for root
    assert energy_meter(CPU, True, tmp_path).source.startswith("not told: RAPL cannot be read")


class _NvmlError(Exception):
    pass


def nvml(handles: dict[str, int], millijoules: list[int] | None) -> ModuleType:
    module = ModuleType("pynvml")

    def energy(handle: int) -> int:
        if millijoules is None:
            raise _NvmlError("Not Supported")
        return millijoules[handle]

    module.NVMLError = _NvmlError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = handles.__getitem__
    module.nvmlDeviceGetTotalEnergyConsumption = energy
    return module


def test_a_gpu_is_found_by_its_name_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = [5_000, 70_000]
    monkeypatch.setitem(sys.modules, "pynvml", nvml({"GPU-aa": 0, "GPU-bb": 1}, counters))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="bb"))
    meter = energy_meter(torch.device("cuda", 0), True)
    counters[:] = 6_000, 73_500
    assert (meter.read(), meter.source) == (3.5, "NVML")


def test_a_gpu_that_does_not_tell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml({"GPU-aa": 0}, None))
    meter = energy_meter(torch.device("cuda", 0), True)
    assert (meter.read(), meter.source) == (None, "not told: the driver does not (Not Supported)")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py is not installed" in energy_meter(torch.device("cuda", 0), True).source
