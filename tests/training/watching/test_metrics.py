import dataclasses
import json
import tracemalloc
from pathlib import Path

import pytest
import torch

from schemas.record import from_json, to_json
from training.checkpoints.folder import TrainState
from training.data.plan import PlanState
from training.data.reader import Fault
from training.distributed.world import World
from training.gradient import Accumulated
from training.watching.metrics import METRICS, MetricsLog, Window, line, read_metrics, summarise, table

WORLD = World(0, 1, torch.device("cpu"), None)
NAN = float("nan")


def done(terms: torch.Tensor, by_sample: torch.Tensor | None = None, flops: int = 0) -> Accumulated:
    return Accumulated(terms, 4, (), torch.zeros(3, 0) if by_sample is None else by_sample, flops, 0.0)


def window(state: TrainState | None = None) -> Window:
    return Window(WORLD, state or TrainState(PlanState("d", "p", 0, 0, 0)))


def fill(into: Window, losses: list[float], norms: list[float] | None = None) -> None:
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        into.add(done(torch.tensor([loss, loss / 2, loss / 2])), torch.tensor(norm))
    into.settle()


def test_a_record_holds_the_means_and_each_step() -> None:
    filled = window()
    fill(filled, [1.0, 3.0])
    record = filled.record(step=2, images=8, lr=0.1)
    assert (record["loss"], record["mse"], record["vb"]) == (2.0, 1.0, 1.0)
    assert record["step_loss"] == [1.0, 3.0]
    assert (record["steps"], record["images"], record["skipped"]) == (2, 8, 0)


def test_skipped_steps_are_counted_with_their_longest_streak() -> None:
    filled = window()
    fill(filled, [1.0] * 6, [NAN, 1.0, NAN, float("inf"), NAN, 1.0])
    assert (filled.skipped, filled.streak, filled.longest_streak) == (4, 0, 3)
    filled.restart()
    assert filled.longest_streak == 0


def test_a_loss_that_is_not_finite_is_null_and_left_out_of_the_mean() -> None:
    filled = window()
    fill(filled, [1.0, NAN, 2.0])
    record = filled.record(step=3, images=12, lr=0.1)
    assert record["loss"] == 1.5
    assert record["step_loss"] == [1.0, None, 2.0]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_window_taken_up_again_goes_on_where_it_was() -> None:
    whole, before = window(), window()
    fill(whole, [1.0, 2.0, 3.0])
    fill(before, [1.0, 2.0])
    state = TrainState(PlanState("d", "p", 0, 2, 8), rows=tuple(before.rows), seconds=5.0, data_wait=2.0)
    after = window(state)
    fill(after, [3.0])
    record = after.record(3, 12, 0.1)
    assert record["step_loss"] == whole.record(3, 12, 0.1)["step_loss"]
    assert record["seconds"] >= 5.0
    assert record["data_wait"] == 2.0


def by_sample(timesteps: list[float], losses: list[float], weights: list[float]) -> torch.Tensor:
    return torch.tensor([timesteps, losses, weights], dtype=torch.float64)


def test_a_record_holds_the_loss_by_timestep_over_what_was_saved_and_what_came_after(tmp_path: Path) -> None:
    before = window()
    before.add(done(torch.ones(3), by_sample([50, 300, 999], [1.0, 2.0, 9.0], [1, 1, 0])), torch.tensor(1.0))
    before.settle()
    state = TrainState(PlanState("d", "p", 0, 1, 4), rows=tuple(before.rows), bins=before.bins.totals)
    after = window(from_json(TrainState, to_json(state), "state.json"))
    after.add(done(torch.ones(3), by_sample([99.5, NAN], [3.0, 1.0], [1, 1])), torch.tensor(1.0))
    after.settle()
    record = after.record(2, 8, 0.1)
    assert record["loss_by_timestep"] == {"0-100": 2.0, "100-250": None, "250-500": 2.0, "500-750": None, "750+": None}
    log = MetricsLog(tmp_path, 0, 0)
    log.write(record)
    log.close()
    after.restart()
    assert not any(count for _, count in after.bins.totals)


def test_the_share_of_the_peak_counts_all_steps_of_the_window_and_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = window()
    fill(filled, [1.0])
    assert "mfu" not in filled.record(1, 4, 0.1)
    monkeypatch.setattr("training.watching.metrics._peak", lambda _: 1e9)
    filled = Window(WORLD, TrainState(PlanState("d", "p", 0, 1, 4), seconds=1e3, flops=1e11))
    filled.add(done(torch.ones(3), flops=400_000_000_000), torch.tensor(1.0))
    filled.settle()
    record = filled.record(2, 8, 0.1)
    assert record["mfu"] == pytest.approx(5e11 / record["seconds"] / 1e9)
    assert "MFU 50.0%" in line(record, 100)
    filled.restart()
    assert filled.flops == 0


def test_records_beyond_the_resumed_step_and_a_torn_last_line_are_cut_off(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, 0)
    for step in (2, 4, 6):
        filled = window()
        fill(filled, [float(step)] * 2)
        log.write(filled.record(step, step * 4, 0.1))
    log.close()
    whole = (tmp_path / METRICS).read_bytes()
    for left in (b'{"step": 8, "ima', b"\0" * 500, b"\0" * 500 + b"\n", b'{"step": 8, "ima\xff\n{"step": 10}\n'):
        (tmp_path / METRICS).write_bytes(whole + left)
        MetricsLog(tmp_path, 20, 80).close()
        assert (tmp_path / METRICS).read_bytes() == whole
    MetricsLog(tmp_path, 4, 16).close()
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4]


def test_the_records_of_a_long_run_are_never_all_in_memory(tmp_path: Path) -> None:
    filled = window()
    fill(filled, [1.0] * 10)
    text = json.dumps(filled.record(10, 40, 0.1)) + "\n"
    (tmp_path / METRICS).write_text(text * 20_000)
    size = (tmp_path / METRICS).stat().st_size
    tracemalloc.start()
    MetricsLog(tmp_path, 10, 40).close()
    assert summarise(tmp_path).images_seen == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4


def test_the_summary_compares_the_first_ten_steps_with_the_last_ten(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, 0)
    for part in range(5):
        filled = window()
        fill(filled, [float(5 - part)] * 6)
        log.write(filled.record(6 * (part + 1), 24 * (part + 1), 0.1))
    log.close()
    summary = summarise(tmp_path)
    assert (summary.steps, summary.images_seen) == (30, 120)
    assert summary.first_loss == (6 * 5 + 4 * 4) / 10
    assert summary.last_loss == (6 * 1 + 4 * 2) / 10
    assert "loss, first 10 steps" in table(summary)


def test_damaged_samples_are_counted_over_all_that_came_before_and_named_until_the_next_line() -> None:
    filled = window(TrainState(PlanState("d", "p", 0, 2, 8), corrupt=3))
    faults = tuple(Fault(at, f"{name} is damaged", True) for at, name in enumerate("ba"))
    filled.add(dataclasses.replace(done(torch.ones(3)), faults=faults), torch.tensor(1.0))
    filled.settle()
    assert filled.share_faults() == ["a is damaged", "b is damaged"]
    record = filled.record(3, 12, 0.1)
    assert (record["corrupt"], record["corrupt_samples"]) == (5, ["a is damaged", "b is damaged"])
    assert "CORRUPT 5" in line(record, 100)
    filled.restart()
    fill(filled, [1.0])
    assert filled.share_faults() == []
    assert filled.record(4, 16, 0.1)["corrupt"] == 5


def test_the_line_for_people_says_what_was_skipped_and_what_is_not_finite() -> None:
    filled = window()
    fill(filled, [NAN, NAN], [NAN, NAN])
    said = line(filled.record(2, 8, 0.1), 100)
    assert "step 2/100" in said
    assert "loss non-finite" in said
    assert "SKIPPED 2" in said
