import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from curation.shards import target as target_module
from curation.shards.target import Target, storage_errors
from schemas.errors import ExitCode, StorageError, UserError


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def storage_refusal(act: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as error:
        act()
    assert error.value.exit_code is ExitCode.STORAGE
    assert "\n" not in str(error.value)
    assert "run the same command" in str(error.value)
    return str(error.value)


def test_a_file_is_in_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    target = Target(str(tmp_path / "out"))
    temporary = target.temporary("index/a.parquet")
    Path(temporary).write_bytes(b"content")
    assert Path(temporary).parent == tmp_path / "out/index"
    assert not target.fs.exists(target.path("index/a.parquet"))
    target.publish(temporary, "index/a.parquet")
    assert (tmp_path / "out/index/a.parquet").read_bytes() == b"content"
    target.write_text("index/a.parquet", "newer")
    assert files(tmp_path / "out") == {"index/a.parquet"}
    assert (tmp_path / "out/index/a.parquet").read_text() == "newer"


def test_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace, remove = os.fsync, os.replace, os.remove

    def seen_fsync(descriptor: int) -> None:
        events.append("fsync " + ("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    monkeypatch.setattr(os, "remove", lambda path: (events.append("remove"), remove(path)))
    target = Target(str(tmp_path))
    target.write_text("a.json", "1")
    assert events == ["fsync file", "rename", "fsync folder", "remove"]  # the last finds nothing left
    events.clear()
    target.remove("a.json")
    assert events == ["remove", "fsync folder"]


def test_removing_what_is_not_there_is_no_error(tmp_path: Path, memory_url: str) -> None:
    for url in (str(tmp_path / "absent"), memory_url):
        Target(url).remove("ledger/a.json")


def test_a_long_name_gets_a_temporary_name_that_fits(tmp_path: Path) -> None:
    target = Target(str(tmp_path))
    target.write_text("ü" * 120 + ".json", "x")
    assert files(tmp_path) == {"ü" * 120 + ".json"}
    assert "the name is too long for this disk" in storage_refusal(lambda: target.write_text("n" * 300, "x"))
    assert files(tmp_path) == {"ü" * 120 + ".json"}


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    target = Target(str(tmp_path))
    mine = Path(target.temporary("ledger/a.json"))
    host, pid, start, token = mine.name.rpartition(".tmp-")[2].split("-")
    assert int(pid) == os.getpid()
    leftovers = {
        "dead": f".a.tmp-{host}-{dead_pid()}-{start}-{token}",
        "pid came back": f".b.tmp-{host}-{pid}-{int(start) - 1000}-{token}",
    }
    kept = {
        "alive": f".c.tmp-{host}-{pid}-{start}-{token}",
        "clock moved by a second": f".d.tmp-{host}-{pid}-{int(start) + 1}-{token}",
        "other host": f".e.tmp-elsewhere-{dead_pid()}-{start}-{token}",
        "not ours": "notes.tmp-1",
        "not ours either": f"x.tmp-{host}-y-z-w",
        "output": "a.parquet",
    }
    for name in (*leftovers.values(), *kept.values()):
        (tmp_path / "ledger" / name).write_text("x")
    assert sorted(target.sweep()) == sorted(leftovers.values())
    assert files(tmp_path) == {f"ledger/{name}" for name in kept.values()}
    assert target.sweep() == []


def test_what_cannot_be_swept_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(str(tmp_path))
    name = Path(target.temporary("a")).name.replace(f"-{os.getpid()}-", f"-{dead_pid()}-")
    (tmp_path / name).mkdir()  # os.remove refuses a directory
    (tmp_path / name / name).write_text("x")
    monkeypatch.setattr(target_module.os, "remove", lambda path: (_ for _ in ()).throw(PermissionError(path)))
    target.sweep()
    assert (tmp_path / name / name).exists()


def test_sweeping_a_directory_that_does_not_exist_does_nothing(tmp_path: Path) -> None:
    assert Target(str(tmp_path / "absent")).sweep() == []
    assert not (tmp_path / "absent").exists()


def test_trying_whether_it_is_writable_leaves_nothing(tmp_path: Path, memory_url: str) -> None:
    target = Target(str(tmp_path / "a/b"))
    target.require_writable()
    assert (tmp_path / "a/b").is_dir()
    assert files(tmp_path) == set()
    Target(memory_url).require_writable()
    assert fsspec.filesystem("memory").find(memory_url) == []


def test_a_file_in_the_place_of_the_directory_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    for url in (tmp_path / "out", tmp_path / "out/deeper"):
        assert "a file is in the place of a directory" in storage_refusal(Target(str(url)).require_writable)
    assert (tmp_path / "out").read_text() == "x"


def test_a_directory_in_the_place_of_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    assert "a directory is in the place of a file" in storage_refusal(
        lambda: Target(str(tmp_path)).write_text("a.json", "x")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_unknown_protocol_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"Protocol not known"):
        Target("nonsense://x").require_writable()


def test_a_full_disk_is_named_and_leaves_no_trace(small_disk: Path) -> None:
    target = Target(str(small_disk / "out"))
    target.write_bytes("a", b"x" * 100_000)
    message = storage_refusal(lambda: target.write_bytes("b", b"x" * 300_000))
    assert message.startswith(f"{small_disk}/out/b: the disk is full. Nothing half-written was published")
    assert files(small_disk) == {"out/a"}
    target.write_bytes("b", b"x" * 50_000)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "the disk is read-only" in storage_refusal(Target(str(small_disk / "out")).require_writable)
    assert "the disk is read-only" in storage_refusal(Target(str(small_disk)).require_writable)


def test_a_file_above_the_limit_of_the_process_is_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = Target(str(tmp_path))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = storage_refusal(lambda: target.write_bytes("a", b"x" * 200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the file would be larger than this process may write" in message
    assert files(tmp_path) == set()


def test_other_errors_pass_through_as_they_are() -> None:
    with pytest.raises(OSError, match=r"odd") as error, storage_errors("x"):
        raise OSError("odd")
    assert not isinstance(error.value, UserError)


def test_another_file_system_gets_each_file_in_one_piece(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = Target(memory_url)
    temporary = target.temporary("index/a.parquet")
    Path(temporary).write_bytes(b"content")
    assert target.sweep() == []
    assert os.path.exists(temporary)
    target.publish(temporary, "index/a.parquet")
    assert target.fs.cat_file(target.path("index/a.parquet")) == b"content"
    target.write_text("ledger/a.json", "{}")
    target.remove("index/a.parquet")
    assert fsspec.filesystem("memory").find(memory_url) == [target.path("ledger/a.json")]
    assert files(tmp_path) == set()
    assert target.free_bytes() is None


def test_local_files_that_a_dead_upload_left_are_swept(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = Target(memory_url)
    name = Path(target.temporary("a.tar")).name.replace(f"-{os.getpid()}-", f"-{dead_pid()}-")
    (tmp_path / name).write_text("x")
    assert target.sweep() == [name]


def test_two_processes_may_sweep_and_write_one_directory_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from curation.shards.target import Target\n"
        "target = Target(sys.argv[1])\n"
        "for i in range(40):\n"
        "    target.sweep()\n"
        "    target.write_text(f'ledger/{i:03d}.json', 'same')\n"
        "    target.remove(f'ledger/{i - 1:03d}.json')\n"
    )
    root = Path(__file__).parents[3]
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root) for _ in range(2)]
    deadline = time.monotonic() + 60
    assert [process.wait(max(1.0, deadline - time.monotonic())) for process in processes] == [0, 0]
    assert files(tmp_path) == {"ledger/039.json"}
