"""An object store that refuses: for a moment, for good, and half-way through an upload."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import write_shards
from dataset_files import broken_among
from refusing_store import Refuse, RefusingStore, denied, files, registered, run, slow_down

from schemas.errors import ExitCode, StorageError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.shards.target._UPLOAD_PAUSES", (0.0, 0.0))


@pytest.fixture
def store() -> Iterator[type[RefusingStore]]:
    with registered() as store:
        yield store


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    write_shards(tmp_path / "in")
    return [f"{tmp_path}/in/*.tar"]


def for_a_moment(number: int, attempt: int) -> Exception | None:
    return slow_down(number, attempt) if attempt < 2 else None


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_store_that_refuses_now_and_then_is_asked_again(
    store: type[RefusingStore], shards: list[str], answer_lost: bool
) -> None:
    assert run(shards, "expected").exit_code is ExitCode.OK
    store.begin(for_a_moment, answer_lost=answer_lost)
    summary = run(shards)
    assert summary.failed == {}
    assert summary.exit_code is ExitCode.OK
    assert set(store.refused.values()) == {2}
    assert files() == files("expected")


@pytest.mark.parametrize("first", [1, 2, 6, 11, 20])
@pytest.mark.parametrize("error", [slow_down, denied])
def test_where_it_refuses_for_good_nothing_is_lost_and_the_same_command_goes_on(
    store: type[RefusingStore], shards: list[str], first: int, error: Refuse
) -> None:
    assert run(shards, "expected").exit_code is ExitCode.OK
    store.begin(lambda number, attempt: error(number, attempt) if number >= first else None)
    if first == 1:  # before anything was touched
        with pytest.raises(StorageError, match=r"no permission|3 times in a row"):
            run(shards)
    else:
        ended = run(shards)
        assert ended.exit_code is ExitCode.STORAGE
        assert "bucket/out/" in ended.stopped_by
    entries = [content for path, content in files().items() if path.startswith("ledger/")]
    assert not broken_among(entries, files().get, files("expected"))
    store.begin()
    assert run(shards).exit_code is ExitCode.OK
    assert files() == files("expected")
