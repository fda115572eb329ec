import multiprocessing
import os
import random
from pathlib import Path

import pytest

from schemas.errors import UserError
from training.data.cache import Cache


def stored(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*/*")}


def content(name: str, size: int = 100) -> bytes:
    return (name.encode() * size)[:size]


def read(cache: Cache, name: str, size: int = 100) -> bytes | None:
    head, body = bytearray(8), bytearray(size - 8)
    return bytes(head + body) if cache.get(name, (head, memoryview(body))) else None


def test_what_was_put_is_read_into_the_buffers_given(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000)
    assert read(cache, "aa1") is None
    cache.put("aa1", content("aa1"))
    assert read(cache, "aa1") == content("aa1")
    assert read(Cache(tmp_path / "cache", 1000), "aa1") == content("aa1")


def test_what_was_not_used_for_longest_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    for i in range(10):
        cache.put(f"{i:02d}", content(f"{i:02d}"))
        os.utime(tmp_path / f"{i:02d}" / f"{i:02d}", (i, i))
    assert read(cache, "00") is not None  # used just now, so 01 is the oldest
    cache.put("new", content("new"))
    left = stored(tmp_path)
    assert {"00", "new", "09"} <= set(left)
    assert not {"01", "02"} & set(left)
    assert sum(left.values()) <= 1000


def test_an_object_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 99)
    cache.put("aa", content("aa"))
    assert stored(tmp_path) == {}


def test_a_shorter_object_than_asked_for_is_not_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.put("aa", content("aa", 50))
    assert read(cache, "aa") is None


def test_a_dropped_object_is_gone(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.put("aa", content("aa"))
    cache.drop("aa")
    cache.drop("aa")
    assert read(cache, "aa") is None


def test_the_size_is_measured_anew_by_who_opens_the_cache(tmp_path: Path) -> None:
    Cache(tmp_path, 1000).put("aa", content("aa", 900))
    (tmp_path / "size").write_text("0")
    Cache(tmp_path, 1000).put("bb", content("bb", 900))
    assert list(stored(tmp_path)) == ["bb"]


def test_the_file_of_a_writer_that_died_counts_and_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    (tmp_path / "aa").mkdir()
    left = tmp_path / "aa" / "aa.1-1.part"
    left.write_bytes(bytes(900))
    cache = Cache(tmp_path, 1000)
    cache.put("bb", content("bb", 500))
    assert list(stored(tmp_path)) == [left.name]  # its writer may still be at it
    os.utime(left, (1, 1))
    cache.put("bb", content("bb", 500))
    assert list(stored(tmp_path)) == ["bb"]


def test_a_cache_that_cannot_be_made_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache .*Choose a local directory") as caught:
        Cache(tmp_path / "file" / "cache", 1000)
    assert "\n" not in str(caught.value)


def _use(folder: Path, seed: int, wrong: "multiprocessing.Queue[str]") -> None:
    cache, chosen = Cache(folder, 5_000), random.Random(seed)
    for _ in range(200):
        name = f"{chosen.randrange(40):02d}-{chosen.randrange(3)}"
        size = 100 + 37 * int(name[:2])
        found = read(cache, name, size)
        if found is None:
            cache.put(name, content(name, size))
        elif found != content(name, size):
            wrong.put(f"{name}: other content")
        if (total := sum(stored_sizes(folder))) > 5_000:
            wrong.put(f"{total} bytes")
    wrong.put("done")


def stored_sizes(folder: Path) -> list[int]:
    """Sizes of all files, as long as nothing changed while they were looked at."""
    for _ in range(20):
        try:
            seen = stored(folder)
        except FileNotFoundError:
            continue
        if seen.keys() == {path.name for path in folder.glob("*/*")}:
            return list(seen.values())
    return []


def test_three_processes_share_it_within_its_limit_and_read_only_whole_objects(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    wrong: multiprocessing.Queue[str] = spawn.Queue()
    workers = [spawn.Process(target=_use, args=(tmp_path, seed, wrong)) for seed in range(3)]
    for worker in workers:
        worker.start()
    said = [wrong.get(timeout=120)]
    while said.count("done") < 3:
        said.append(wrong.get(timeout=120))
    for worker in workers:
        worker.join()
    assert said == ["done"] * 3
