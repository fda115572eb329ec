"""What a selection does to a job: rows left out, what is due when it changes, and what the guard counts."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from curation.execution.job import JobOptions, dry_run
from curation.execution.selected import not_found
from schemas.errors import ExitCode, UserError
from schemas.reading import open_dataset, read_ledger
from schemas.selection import Selection, make_selection


def keys(shard: str, *rows: int) -> list[tuple[str, str]]:
    return [(shard, f"{shard}/k{row:03d}") for row in rows]


def selection(*pairs: tuple[str, str]) -> Selection:
    return make_selection(pa.table({"shard": [s for s, _ in pairs], "key": [k for _, k in pairs]}))


SOME = selection(*keys("a", 0, 5, 9), *keys("b", 1))


def test_only_selected_rows_are_kept_and_the_others_are_refused_by_name(copying: Any) -> None:
    summary = copying.run(selection=SOME)
    assert sorted(copying.rows()) == ["a/k000", "a/k005", "a/k009", "b/k001"]
    assert (summary.rows_in, summary.rows_kept, summary.rejected) == (15, 4, {"not_selected": 11})
    assert set(copying.rejected().values()) == {"not_selected"}
    assert len(copying.rejected()) == 11
    open_dataset(str(copying.out), "copies").require_whole()
    assert copying.run(selection=SOME).units_current == 5


def test_another_selection_makes_the_units_of_changed_shards_due_and_says_why(copying: Any) -> None:
    copying.run(selection=SOME)
    stamps = copying.stamps()
    other = selection(*keys("a", 0, 5, 9), *keys("b", 1, 2))
    printed = io.StringIO()
    dry_run(copying.job(selection=other), Console(file=printed, width=300))
    assert "b-00000: due, the selection changed (4 rows)" in printed.getvalue()
    assert "2 due, 3 whole and current" in printed.getvalue()
    summary = copying.run(selection=other)
    assert (summary.units_done, summary.units_current, summary.due) == (2, 3, {"the selection changed": 2})
    unchanged = {name: stamp for name, stamp in stamps.items() if "a-0" in name}
    assert {name: copying.stamps()[name] for name in unchanged} == unchanged
    assert "b/k002" in copying.rows()


@pytest.mark.parametrize(("first", "second"), [(None, SOME), (SOME, None)], ids=["taken up", "given up"])
def test_a_selection_taken_up_or_given_up_makes_everything_due(copying: Any, first: Any, second: Any) -> None:
    copying.run(selection=first)
    assert copying.run(selection=second).due == {"the selection changed": 5}
    assert len(copying.rows()) == (4 if second else 15)


def test_a_changed_shard_is_an_input_that_changed_whatever_the_selection(copying: Any, write_shard: Any) -> None:
    copying.run(selection=SOME)
    write_shard("b", 5, words="goodbye")
    assert copying.run(selection=selection(*keys("a", 0, 5, 9), *keys("b", 2))).due == {"input changed": 2}


def test_units_of_the_old_selection_do_not_exist_for_readers_while_they_are_renewed(copying: Any) -> None:
    copying.run(selection=SOME)
    failed = copying.run(selection=selection(*keys("a", 1), *keys("b", 1)), trouble={"a/k001": "user_error"})
    assert failed.exit_code == ExitCode.BAD_INPUT
    assert [entry.unit for entry in read_ledger(str(copying.out)).entries] == ["b-00000", "b-00001"]


def test_two_runs_with_one_selection_write_the_same_bytes_also_after_another(copying: Any, tmp_path: Any) -> None:
    copying.run()
    copying.run(selection=SOME)
    copying.run(selection=SOME, out=tmp_path / "fresh")
    assert copying.files() == copying.files(tmp_path / "fresh")


def test_rows_left_out_do_not_count_towards_max_rejected(copying: Any) -> None:
    strict = JobOptions(max_rejected=0.0)
    assert copying.run(strict, selection=SOME).exit_code == ExitCode.OK


def test_of_the_selected_rows_the_share_rejected_counts(copying: Any) -> None:
    summary = copying.run(JobOptions(max_rejected=0.2), selection=SOME, trouble={"a/k000": "reject"})
    assert summary.exit_code == ExitCode.STOPPED
    assert "1 of 4 rows rejected, above --max-rejected 20.0%; most often corrupt (1)" in summary.stopped_by


def test_selected_samples_that_are_nowhere_are_told_by_every_run(copying: Any) -> None:
    wanted = selection(*keys("a", 0, 5), ("a", "gone"), *keys("b", 1), *keys("c", 1, 2))
    for summary in (copying.run(selection=wanted), copying.run(selection=wanted)):
        lacking, elsewhere = summary.warnings
        assert lacking.startswith("1 of the 6 selected samples are not in their shards (1 of a).")
        assert elsewhere.startswith("2 of the 6 selected samples are of shards that were not given (2 of c).")
        assert summary.exit_code == ExitCode.OK
    assert copying.run(selection=SOME).warnings == []


def test_a_selected_row_that_cannot_be_read_is_no_missing_one(copying: Any) -> None:
    summary = copying.run(JobOptions(max_rejected=1.0), selection=SOME, trouble={"a/k000": "reject"})
    assert (summary.rejected["corrupt"], summary.warnings) == (1, [])


def test_of_a_unit_that_failed_nothing_is_called_missing(copying: Any) -> None:
    summary = copying.run(JobOptions(attempts=1), selection=SOME, trouble={"a/k000": "raise"})
    assert (summary.exit_code, summary.warnings) == (ExitCode.UNITS_FAILED, [])


def test_shards_that_the_dataset_has_from_before_are_not_called_missing(copying: Any) -> None:
    copying.run(selection=SOME)
    entries = read_ledger(str(copying.out)).entries
    assert not_found(SOME, entries, ["a"]) == []
    assert len(not_found(SOME, [entry for entry in entries if entry.shard == "a"], ["a"])) == 1


def test_a_selection_of_other_shards_stops_the_job_before_it_begins(copying: Any) -> None:
    with pytest.raises(UserError, match=r"takes nothing of these 2 shards \(a, \.\.\)"):
        copying.job(selection=selection(("c", "c/k000")))
    assert not copying.out.exists()


def test_a_shard_of_which_nothing_is_selected_gives_units_without_rows(copying: Any) -> None:
    copying.run(selection=selection(*keys("a", 3)))
    assert pq.read_table(copying.out / "b-00000.parquet").num_rows == 0
    open_dataset(str(copying.out), "copies").require_whole()
