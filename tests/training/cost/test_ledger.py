from dataclasses import replace
from pathlib import Path

import pytest
import torch

from schemas.errors import SchemaError
from training.cost import ledger
from training.cost.energy import NotTold
from training.cost.ledger import COST, CostMeter, CostRecord, Session, read_cost, total
from training.distributed.world import World

WORLD = World(0, 1, torch.device("cpu"), None)
SESSION = Session("2026-11-28T01:00:00+00:00", {"H100": 8}, 43_200.0, 0, 1000, 3.6e6, 43_200.0, "NVML")


class Meter:
    source = "NVML"
    joules: float | None = 0.0

    def read(self) -> float | None:
        return self.joules


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    own = Meter()
    monkeypatch.setattr(ledger, "energy_meter", lambda device, first: own)
    return own


def test_device_days_images_and_joules_of_all_starts_add_up() -> None:
    later = replace(SESSION, devices={"H100": 4, "A100": 4}, seconds=86_400.0, first_images=900, images=3000)
    found = total([CostRecord((SESSION, replace(later, joules_seconds=86_400.0)))])
    assert found.device_days == {"H100": 8.0, "A100": 4.0}
    assert found.days == 12
    assert found.images == 3000  # the 100 between 900 and 1000 were done twice, and are seen once
    assert found.joules == 7.2e6
    assert found.joules_share == 1
    both = total([CostRecord((SESSION,)), CostRecord((later,))])
    assert both.images == 4000


def test_energy_that_one_start_does_not_tell_is_not_told_of_the_whole() -> None:
    silent = replace(SESSION, joules=None, joules_seconds=0.0, energy="not told: no")
    found = total([CostRecord((SESSION, silent))])
    assert found.joules is None
    assert found.energy == ("NVML", "not told: no")
    assert total([CostRecord()]).device_days == {}


def test_a_start_is_recorded_behind_those_before_it(tmp_path: Path, meter: Meter) -> None:
    for first, images, joules in ((0, 100, 5.0), (80, 300, 7.0)):
        own = CostMeter(tmp_path, WORLD)
        own.start(first)
        meter.joules = joules
        own.settle(images)
    found = read_cost(tmp_path).sessions
    assert [(s.first_images, s.images, s.joules, s.energy) for s in found] == [
        (0, 100, 5.0, "NVML"),
        (80, 300, 7.0, "NVML"),
    ]
    assert all(s.seconds > 0 and s.joules_seconds == s.seconds for s in found)
    assert all(list(s.devices.values()) == [1] for s in found)


def test_a_killed_start_leaves_what_it_took_until_the_last_record(
    tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(ledger.time, "perf_counter", lambda: now)
    own = CostMeter(tmp_path, WORLD)
    own.start(0)
    now = 1010.0
    own.settle(64)
    now = 1035.0  # less than half a minute after the last record
    own.tick(128)
    assert read_cost(tmp_path).sessions[0].images == 64
    now = 1041.0
    own.tick(192)
    (left,) = read_cost(tmp_path).sessions  # here it is killed
    assert (left.seconds, left.images, left.joules_seconds) == (41.0, 192, 10.0)
    assert total([CostRecord((left,))]).joules_share == pytest.approx(10 / 41)
    assert len([*tmp_path.iterdir()]) == 1


def test_ranks_of_one_machine_are_one_cpu_and_other_ranks_other_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ledger, "energy_meter", lambda device, first: NotTold("not told"))
    everywhere = [("a", "EPYC"), ("a", "EPYC"), ("b", "EPYC")]

    class Several(World):
        def from_all(self, value: object) -> list[object]:
            return list(everywhere) if isinstance(value, tuple) and value[0] == "a" else [value, None, None]

    monkeypatch.setattr(ledger.platform, "node", lambda: "a")
    monkeypatch.setattr(ledger, "device_name", lambda device: "EPYC")
    for device, count in (("cpu", 2), ("cuda", 3)):
        own = CostMeter(tmp_path / device, Several(0, 1, torch.device(device), None))
        (tmp_path / device).mkdir()
        own.settle(8)
        assert read_cost(tmp_path / device).sessions[0].devices == {"EPYC": count}


def test_a_damaged_record_is_told_and_not_written_over(tmp_path: Path, meter: Meter) -> None:
    (tmp_path / COST).write_text("{")
    with pytest.raises(SchemaError, match=COST):
        CostMeter(tmp_path, WORLD)
    assert (tmp_path / COST).read_text() == "{"
