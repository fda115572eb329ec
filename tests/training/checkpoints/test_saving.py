import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from schemas.errors import StorageError
from schemas.record import to_json
from training.checkpoints import folder as ckpt
from training.checkpoints.saving import Content, HostCopy, Saver
from training.data.plan import PlanState
from training.distributed.world import World
from training.models.config import PixArtConfig

ALONE = World(0, 1, torch.device("cpu"), None)
FACTS = {"kind": "raw", "images_seen": "0", "vae_scaling_factor": "1.0", "vae_shift_factor": "0.0"}


def content(run: Path, step: int, weights: Tensor) -> Content:
    state = ckpt.TrainState(PlanState("d", "p", 0, step, 8 * step))
    return Content(
        step=step,
        weights={ckpt.RAW: {"a": weights}, ckpt.EMA: {"a": weights / 2}},
        metadata={ckpt.RAW: FACTS, ckpt.EMA: FACTS},
        model=PixArtConfig(),
        states={ckpt.OPTIMISER: {"step.a": torch.tensor(float(step))}},
        texts={ckpt.STATE: to_json(state), ckpt.RECIPE: "{}"},
        kept={ckpt.EMA: run / "kept" / f"{step}.safetensors"} if step == 1 else {},
    )


class Gate:
    """Holds the writer where `pass_through` is called, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.fault: Exception | None = None

    def pass_through(self) -> None:
        self.reached.set()
        assert self.open.wait(20)
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_files_are_the_same_bytes_whether_training_waits_or_not(tmp_path: Path) -> None:
    for background in (True, False):
        run = tmp_path / str(background)
        saver = Saver(run, 2, ALONE, background)
        for step in (1, 2, 3):
            saver.save(content(run, step, torch.full((5,), float(step))), lambda: None)
        saver.wait()
    assert files(tmp_path / "True") == files(tmp_path / "False")
    assert {"weights/raw.safetensors", "kept/1.safetensors"} < files(tmp_path / "True").keys()
    assert not (tmp_path / "True" / "checkpoints" / "step-00000001").exists()


def test_what_changes_after_the_step_boundary_is_not_in_the_checkpoint(tmp_path: Path, gate: Gate) -> None:
    saver, weights = Saver(tmp_path, 2, ALONE, background=True), torch.zeros(5)
    saver.save(content(tmp_path, 1, weights), gate.pass_through)
    assert gate.reached.wait(20)
    weights += 1
    gate.open.set()
    saver.wait()
    assert load_file(tmp_path / "checkpoints" / "step-00000001" / ckpt.RAW)["a"].tolist() == [0] * 5
    assert load_file(tmp_path / "weights" / "raw.safetensors")["a"].tolist() == [0] * 5


def test_training_goes_on_while_the_disk_is_slow_and_a_second_save_waits(tmp_path: Path, gate: Gate) -> None:
    saver = Saver(tmp_path, 2, ALONE, background=True)
    saver.save(content(tmp_path, 1, torch.zeros(5)), gate.pass_through)
    assert gate.reached.wait(20)
    assert ckpt.newest(tmp_path, pytest.fail) is None  # and yet `save` has returned
    second = threading.Thread(target=lambda: saver.save(content(tmp_path, 2, torch.ones(5)), lambda: None))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.open.set()
    second.join(20)
    saver.wait()
    assert newest_step(tmp_path) == 2
    assert load_file(tmp_path / "checkpoints" / "step-00000001" / ckpt.RAW)["a"].tolist() == [0] * 5


def newest_step(run: Path) -> int:
    folder = ckpt.newest(run, pytest.fail)
    assert folder is not None
    return ckpt.load_state(folder).plan.step


@pytest.mark.parametrize("call", [lambda saver, _: saver.wait(), lambda saver, more: saver.save(more, lambda: None)])
def test_an_error_of_the_writer_is_raised_by_the_next_call_and_once(
    tmp_path: Path, gate: Gate, call: Callable[[Saver, Content], None]
) -> None:
    saver = Saver(tmp_path, 2, ALONE, background=True)
    saver.save(content(tmp_path, 1, torch.zeros(5)), lambda: None)
    saver.wait()
    gate.fault = OSError(28, "No space left on device")
    saver.save(content(tmp_path, 2, torch.zeros(5)), gate.pass_through)
    assert not saver.failed
    gate.open.set()
    with pytest.raises(OSError, match="No space left"):
        call(saver, content(tmp_path, 3, torch.zeros(5)))
    assert not saver.failed
    assert newest_step(tmp_path) == 1
    saver.save(content(tmp_path, 3, torch.zeros(5)), lambda: None)
    saver.wait()
    assert newest_step(tmp_path) == 3


def test_a_disk_that_refuses_the_weights_is_a_storage_error_at_the_next_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("no room for weights")

    monkeypatch.setattr("training.checkpoints.saving.save_weights", full)
    saver = Saver(tmp_path, 2, ALONE, background=True)
    saver.save(content(tmp_path, 1, torch.zeros(5)), lambda: None)
    with pytest.raises(StorageError, match="no room"):
        saver.wait()
    with pytest.raises(StorageError, match="no room"):
        Saver(tmp_path, 2, ALONE, background=False).save(content(tmp_path, 1, torch.zeros(5)), lambda: None)


def test_closing_waits_for_the_save_under_way_and_tells_its_error(tmp_path: Path, gate: Gate) -> None:
    said: list[str] = []
    for step, fault in ((1, None), (2, OSError(28, "No space left on device"))):
        saver, gate.fault = Saver(tmp_path, 2, ALONE, background=True), fault
        gate.open.clear()
        saver.save(content(tmp_path, step, torch.zeros(5)), gate.pass_through)
        closing = threading.Thread(target=saver.close, args=(said.append,))
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        gate.open.set()
        closing.join(20)
        assert newest_step(tmp_path) == 1
    assert said == ["the last save failed: [Errno 28] No space left on device"]


def test_the_copy_is_made_in_the_same_memory_each_time() -> None:
    copy, values = HostCopy(ALONE), torch.arange(4.0)
    first = copy.take({"f": {"a": values}})["f"]["a"]
    second = copy.take({"f": {"a": values + 1}})["f"]["a"]
    assert first.data_ptr() == second.data_ptr() != values.data_ptr()
    assert second.tolist() == [1, 2, 3, 4]


def test_ranks_but_the_first_copy_nothing() -> None:
    copy = HostCopy(World(1, 2, torch.device("cpu"), None))
    assert copy.take({"f": {"a": torch.zeros(2)}}) == {"f": {}}
