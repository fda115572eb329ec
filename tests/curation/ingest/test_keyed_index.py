"""The index of texts on disk."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.keyed_index import IndexFacts, KeyedIndex, build_index, stored_facts
from curation.shards.target import Target
from schemas.errors import StorageError, UserError

ROWS = [("b", "two"), ("a", "one"), ("c", None), ("d", "  "), ("b", "two"), ("b", "three")]


def test_texts_are_found_by_key_distinct_and_in_their_order(target: Target) -> None:
    facts = build_index(target, "x.sqlite", ROWS, "digest")
    assert facts == IndexFacts("digest", rows=6, keys=2, empty=2)
    with KeyedIndex(target.path("x.sqlite")) as index:
        assert index.facts == facts
        assert index.texts(["a", "b", "c", "z"]) == {"a": ["one"], "b": ["two", "three"]}


def test_an_index_serves_only_the_sources_it_was_made_of(target: Target) -> None:
    assert stored_facts(target.path("x.sqlite"), "digest") is None
    facts = build_index(target, "x.sqlite", ROWS, "digest")
    assert stored_facts(target.path("x.sqlite"), "digest") == facts
    assert stored_facts(target.path("x.sqlite"), "other") is None


@given(st.sets(st.text("abc", max_size=3)), st.lists(st.text("abc", max_size=3)))
def test_keys_without_are_those_of_the_index_that_the_others_lack(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], others: list[str]
) -> None:
    target = Target(str(tmp_path_factory.mktemp("index")))
    build_index(target, "x.sqlite", [(key, "text") for key in keys], "")
    with KeyedIndex(target.path("x.sqlite")) as index:
        assert list(index.keys_without(others)) == sorted(keys - set(others))


def test_an_index_that_is_not_finished_is_not_there(target: Target) -> None:
    def rows() -> Iterator[tuple[str, str]]:
        yield from [("a", "one")] * 20_000
        raise UserError("damaged")

    with pytest.raises(UserError, match="damaged"):
        build_index(target, "x.sqlite", rows(), "digest")
    assert not list(Path(target.url).iterdir())


def test_a_file_that_is_no_index_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(UserError, match=r"not an index .*Delete it and run again"):
        KeyedIndex(str(tmp_path / "x.sqlite"))


def test_a_full_disk_is_told_as_such(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        build_index(Target(str(small_disk)), "x.sqlite", ((str(n), "text" * 50) for n in range(10_000)), "digest")


def test_python_s_memory_does_not_grow_with_the_rows(target: Target) -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        build_index(target, f"{rows}.sqlite", ((f"key-{n:09d}", "text") for n in range(rows)), "")
        with KeyedIndex(target.path(f"{rows}.sqlite")) as index:
            assert sum(1 for _ in index.keys_without(f"key-{n:09d}" for n in range(0, rows, 2))) == rows // 2
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(120_000) < 1.2 * peak(30_000)
