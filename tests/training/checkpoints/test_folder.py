import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import StorageError, UserError
from schemas.record import to_json
from training.checkpoints import folder as ckpt
from training.data.plan import PlanState
from training.weights.files import EMA_WEIGHTS, RAW_WEIGHTS


class SimulatedKill(BaseException):
    """Ends the process as far as the code under test can tell."""


def writer(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in (ckpt.RAW, ckpt.EMA, ckpt.OPTIMISER):
            (folder / name).write_bytes(f"{name} {step}".encode() * 100)
        (folder / ckpt.STATE).write_text(to_json(ckpt.TrainState(PlanState("d", "p", 0, step, 8 * step))))

    return write


def commit(run: Path, step: int, keep: int = 2) -> Path:
    return ckpt.commit(run, step, keep, writer(step))


def step_of(folder: Path) -> int:
    return ckpt.load_state(folder).plan.step


def newest(run: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    folder = ckpt.newest(run, said.append)
    return (None if folder is None else step_of(folder)), said


def test_the_newest_checkpoint_is_found_and_only_as_many_as_asked_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, [])
    for step in (1, 2, 3):
        commit(tmp_path, step)
    assert newest(tmp_path) == (3, [])
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-00000002", "step-00000003"]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000003\n"


def test_a_copy_beside_the_checkpoints_is_neither_taken_for_one_nor_removed(tmp_path: Path) -> None:
    shutil.copytree(commit(tmp_path, 1), tmp_path / "checkpoints" / "step-00000001.bak")
    shutil.copytree(tmp_path / "checkpoints" / "step-00000001", tmp_path / "checkpoints" / "step-best")
    for step in (2, 3):
        commit(tmp_path, step)
    assert newest(tmp_path) == (3, [])
    names = ["latest", "step-00000001.bak", "step-00000002", "step-00000003", "step-best"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names


def test_steps_are_compared_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 100_000_001):
        commit(tmp_path, step)
    assert newest(tmp_path) == (100_000_001, [])
    shutil.rmtree(tmp_path / "checkpoints" / "step-100000001")
    assert newest(tmp_path) == (100_000_000, [])


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path: Path, damage: str) -> None:
    commit(tmp_path, 1)
    folder = commit(tmp_path, 2)
    target = folder / (ckpt.EMA if "manifest" not in damage else "manifest.json")
    content = target.read_bytes()
    if damage in ("remove", "no manifest"):
        target.unlink()
    else:
        target.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flip" else b""))
        if damage == "manifest":
            target.write_bytes(content[: len(content) // 2])
    step, said = newest(tmp_path)
    assert step == 1
    assert len(said) == 1
    assert said[0].startswith("checkpoint step-00000002 is damaged (")


def test_nothing_but_damaged_checkpoints_is_an_error_and_no_fresh_start(tmp_path: Path) -> None:
    (commit(tmp_path, 1) / ckpt.RAW).unlink()
    with pytest.raises(UserError, match="none of 1 checkpoints is whole"):
        newest(tmp_path)


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    (commit(tmp_path, 2) / ckpt.RAW).unlink()
    commit(tmp_path, 2)
    assert newest(tmp_path) == (2, [])


def test_a_damaged_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    commit(tmp_path, 3)
    for step in (6, 9):
        (commit(tmp_path, step) / ckpt.RAW).unlink()
    commit(tmp_path, 5, keep=1)
    step, said = newest(tmp_path)
    assert step == 5
    assert len(said) == 2


def test_a_kill_at_any_system_call_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    stop_at = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise SimulatedKill
            return function(*arguments, **options)

        return call

    for holder, name in (
        (os, "fsync"),
        (os, "link"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "write_text"),
        (Path, "write_bytes"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (os, "unlink"),
        (os, "rmdir"),
    ):
        monkeypatch.setattr(holder, name, counted(getattr(holder, name)))
    kills = 0
    while True:
        run = tmp_path / f"run{kills}"
        stop_at = 0
        for step in (1, 2):
            commit(run, step)
        calls, stop_at = 0, kills + 1
        try:
            commit(run, 3)
        except SimulatedKill:
            kills += 1
        else:
            break
        stop_at = 0
        published = ((RAW_WEIGHTS, ckpt.RAW), (EMA_WEIGHTS, ckpt.EMA))
        for place, name in published:
            assert (run / place).read_bytes()[: len(name) + 2] in (f"{name} 2".encode(), f"{name} 3".encode())
        step, said = newest(run)
        assert step in (2, 3)
        assert said == []
        ckpt.finish(run, ckpt.folders(run)[0], 2)
        for place, name in published:
            assert (run / place).read_bytes().startswith(f"{name} {step}".encode())
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
            "latest",
            *(f"step-{kept:08d}" for kept in (step - 1, step)),
        ]
        assert (run / "checkpoints" / "latest").read_text() == f"step-{step:08d}\n"
        commit(run, 3)
        assert newest(run) == (3, [])
    assert kills > 15


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StorageError("No space left for weights")])
def test_a_full_disk_is_a_storage_error_and_leaves_the_old_checkpoint(tmp_path: Path, error: Exception) -> None:
    commit(tmp_path, 1)

    def full(folder: Path) -> None:
        (folder / ckpt.RAW).write_bytes(b"as far as it went")
        raise error

    with pytest.raises(StorageError, match="No space left"):
        ckpt.commit(tmp_path, 2, 2, full)
    assert not list((tmp_path / "checkpoints").glob("*.tmp-*"))
    assert newest(tmp_path) == (1, [])


def test_a_run_directory_has_one_writer(tmp_path: Path) -> None:
    with ckpt.locked_run(tmp_path), pytest.raises(UserError, match="another training"), ckpt.locked_run(tmp_path):
        pass
    with ckpt.locked_run(tmp_path):
        pass


def test_a_run_directory_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="cannot be written"), ckpt.locked_run(run):
            pass


def test_weights_are_published_again_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    folder = commit(tmp_path, 1)
    ckpt.finish(tmp_path, folder, 2)
    ckpt.finish(tmp_path, folder, 2)
    monkeypatch.setattr(os, "link", refused)
    ckpt.finish(tmp_path, folder, 2)
    assert (tmp_path / RAW_WEIGHTS).read_bytes() == (folder / ckpt.RAW).read_bytes()
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["ema.safetensors", "raw.safetensors"]


def test_a_checkpoint_of_another_plan_version_is_refused(tmp_path: Path) -> None:
    folder = commit(tmp_path, 1)
    (folder / ckpt.STATE).write_text(to_json(ckpt.TrainState(PlanState("d", "p", 0, 1, 8, plan_version=99))))
    with pytest.raises(UserError, match="plan v99"):
        ckpt.load_state(folder)
