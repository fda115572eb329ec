"""What a job does and does not do again, with the executor that stays in this process."""

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curation.execution.job import JobOptions, dry_run, run_job, unit_rows_of
from curation.shards.target import Target
from schemas.errors import DatasetError, ExitCode, UserError
from schemas.reading import open_dataset, read_plan

ALL = {f"{name}/k{row:03d}": f"hello {name} {row}" for name, rows in (("a", 10), ("b", 5)) for row in range(rows)}
UNITS = ["a-00000", "a-00001", "a-00002", "b-00000", "b-00001"]


def text_of(job: Any) -> str:
    """What a dry run prints."""
    printed = io.StringIO()
    dry_run(job, Console(file=printed, width=300))
    return printed.getvalue()


def test_each_row_is_copied_once_and_the_summary_adds_up(copying: Any) -> None:
    summary = copying.run()
    assert copying.rows() == ALL
    assert (summary.exit_code, summary.units_done, summary.units_current) == (ExitCode.OK, 5, 0)
    assert (summary.rows_in, summary.rows_kept, summary.rows_rejected) == (15, 15, 0)
    assert summary.counts["characters"] == sum(map(len, ALL.values()))
    assert summary.outputs_bytes == sum(
        path.stat().st_size for path in copying.out.iterdir() if path.suffix in {".parquet", ".tar"}
    )
    dataset = open_dataset(str(copying.out), "copies").require_whole()
    assert [entry.unit for entry in dataset.entries] == UNITS
    assert {unit.name for unit in read_plan(str(copying.out)).units} == set(UNITS)


def test_a_second_run_does_nothing_and_says_so(copying: Any) -> None:
    copying.run()
    stamps = copying.stamps()
    printed = io.StringIO()
    summary = copying.run(console=Console(file=printed, width=200))
    assert copying.stamps() == stamps
    assert (summary.units_done, summary.units_current, summary.exit_code) == (0, 5, ExitCode.OK)
    assert "nothing to do: all 5 are whole and current" in printed.getvalue()


@pytest.mark.parametrize(("trouble", "faults"), [({}, ()), ({"open": "user_error"}, ("b: not read yet",))])
def test_a_driver_of_other_shards_that_works_meanwhile_stays_in_the_plan(
    copying: Any, trouble: dict[str, str], faults: tuple[str, ...]
) -> None:
    job = copying.job([str(copying.shards / "a.tar")])

    def plans() -> Any:
        yield from job.plans
        copying.run(shards=[str(copying.shards / "b.tar")], trouble=trouble)

    run_job(dataclasses.replace(job, plans=plans()), JobOptions(), Console(file=io.StringIO()))
    assert open_dataset(str(copying.out), "copies").faults == faults
    plan = read_plan(str(copying.out))
    assert plan.shards == ("a", "b")
    assert [unit.name for unit in plan.units] == (UNITS[:3] if faults else UNITS)


def test_two_runs_elsewhere_write_the_same_bytes(copying: Any, tmp_path: Path) -> None:
    copying.run()
    copying.run(out=tmp_path / "again")
    assert copying.files() == copying.files(tmp_path / "again")


def test_a_changed_setting_makes_all_due_and_is_named(copying: Any, tmp_path: Path) -> None:
    copying.run()
    assert "a-00000: due, suffix changed (4 rows)" in text_of(copying.job(suffix="!"))
    summary = copying.run(suffix="!")
    assert summary.due == {"suffix changed": 5}
    assert copying.rows() == {key: text + "!" for key, text in ALL.items()}
    copying.run(suffix="!", out=tmp_path / "fresh")
    assert copying.files() == {**copying.files(tmp_path / "fresh"), "dataset.json": copying.files()["dataset.json"]}


def test_going_back_to_old_settings_makes_all_due_again(copying: Any) -> None:
    copying.run()
    copying.run(suffix="!")
    assert copying.run().units_done == 5
    assert copying.rows() == ALL


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda out: (out / "a-00001.parquet").unlink(), "a-00001.parquet is missing"),
        (lambda out: (out / "a-00001.tar").write_bytes(b"x"), "a-00001.tar has 1 bytes, expected"),
        (lambda out: (out / "ledger/a-00001.json").unlink(), "not made yet"),
        (lambda out: (out / "ledger/a-00001.json").write_bytes(bytes(9)), "its ledger entry is damaged"),
    ],
    ids=["deleted", "cut", "no entry", "damaged entry"],
)
def test_one_harmed_file_redoes_one_unit(copying: Any, harm: Callable[[Path], Any], reason: str) -> None:
    copying.run()
    whole, stamps = copying.files(), copying.stamps()
    harm(copying.out)
    assert f"a-00001: due, {reason}" in text_of(copying.job())
    assert copying.run().units_done == 1
    assert copying.files() == whole
    kept = {name: stamp for name, stamp in stamps.items() if "a-00001" not in name and not name.startswith("runs/")}
    assert {name: stamp for name, stamp in copying.stamps().items() if name in kept} == kept


def test_a_changed_shard_redoes_its_units_and_no_others(copying: Any, write_shard: Any) -> None:
    copying.run()
    write_shard("b", 5, words="goodbye")
    summary = copying.run()
    assert (summary.units_done, summary.units_current, summary.due) == (2, 3, {"input changed": 2})
    assert copying.rows() == {**ALL, **{f"b/k{row:03d}": f"goodbye b {row}" for row in range(5)}}


def test_a_shard_that_was_only_touched_changes_nothing(copying: Any) -> None:
    copying.run()
    os.utime(copying.shards / "a.tar", (1, 1))
    summary = copying.run()
    assert (summary.units_done, summary.units_current) == (0, 5)


def test_a_shard_that_shrank_takes_its_vanished_units_along(copying: Any, write_shard: Any, tmp_path: Path) -> None:
    copying.run(trouble={"a/k009": "reject"})
    assert (copying.out / "rejects/a-00002.parquet").exists()
    write_shard("a", 3)
    summary = copying.run()
    assert (summary.units_removed, summary.units_done) == (2, 1)
    copying.run(out=tmp_path / "fresh")
    assert copying.files() == copying.files(tmp_path / "fresh")
    open_dataset(str(copying.out), "copies").require_whole()


def test_a_shard_that_grew_gets_its_new_units(copying: Any, write_shard: Any, tmp_path: Path) -> None:
    copying.run()
    write_shard("b", 13)
    assert copying.run().units_done == 4
    copying.run(out=tmp_path / "fresh")
    assert copying.files() == copying.files(tmp_path / "fresh")


def test_while_a_changed_shard_is_redone_readers_are_told_that_it_is_not_whole(copying: Any, write_shard: Any) -> None:
    copying.run()
    write_shard("a", 14, words="goodbye")
    write_shard("b", 5, words="goodbye")
    summary = copying.run(trouble={"a/k005": "user_error"})
    assert summary.exit_code is ExitCode.BAD_INPUT
    dataset = open_dataset(str(copying.out), "copies")
    assert "b: not read yet" in dataset.faults
    assert {"a-00001: not made yet", "a-00002: not made yet", "a-00003: not made yet"} <= set(dataset.faults)
    copying.run()
    open_dataset(str(copying.out), "copies").require_whole()


def test_shards_may_come_in_several_runs(copying: Any, tmp_path: Path) -> None:
    copying.run(shards=[str(copying.shards / "a.tar")])
    summary = copying.run(shards=[str(copying.shards / "b.tar")])
    assert (summary.units_done, summary.units_current) == (2, 0)
    assert copying.rows() == ALL
    assert read_plan(str(copying.out)).shards == ("a", "b")
    assert open_dataset(str(copying.out), "copies").require_whole().info.dataset_id


def test_an_empty_shard_is_a_whole_unit_without_rows(copying: Any, write_shard: Any) -> None:
    write_shard("empty", 0)
    summary = copying.run()
    assert (summary.units_done, summary.rows_in) == (6, 15)
    assert copying.run().units_done == 0


def test_a_unit_that_raises_is_tried_again_and_then_set_aside(copying: Any) -> None:
    output = io.StringIO()
    console = Console(file=output, width=300)
    summary = copying.run(JobOptions(attempts=2), trouble={"a/k005": "raise"}, console=console)
    assert summary.exit_code is ExitCode.UNITS_FAILED
    assert summary.failed == {"a-00001": "ValueError: no luck with [bold]a/k005[/] today"}
    assert set(copying.rows()) == {key for key in ALL if key not in {f"a/k{row:03d}" for row in range(4, 8)}}
    printed = output.getvalue()
    assert "a-00001: set aside, ValueError: no luck with [bold]a/k005[/] today" in printed
    assert "Traceback" in printed
    assert "failed a-00001" in printed
    assert not [name for name in copying.files() if ".tmp-" in name]
    assert open_dataset(str(copying.out), "copies").faults == ("a-00001: not made yet",)
    assert copying.run().units_done == 1
    assert copying.rows() == ALL


@pytest.mark.parametrize(("times", "attempts", "fails"), [(2, 3, False), (3, 3, True), (1, 1, True), (1, 2, False)])
def test_a_unit_has_as_many_attempts_as_asked_for(copying: Any, times: int, attempts: int, fails: bool) -> None:
    summary = copying.run(JobOptions(attempts=attempts), trouble={"a/k005": f"raise:{times}"})
    assert (summary.exit_code is ExitCode.UNITS_FAILED) == fails
    if not fails:
        entry = json.loads((copying.out / "ledger/a-00001.json").read_text())
        assert entry["run"]["attempt"] == times + 1
        assert copying.rows() == ALL


def test_what_the_user_must_mend_stops_the_job_in_one_line(copying: Any) -> None:
    summary = copying.run(trouble={"a/k005": "user_error"})
    assert (summary.exit_code, summary.stopped_by) == (ExitCode.BAD_INPUT, "a/k005: the server is down. Start it.")
    assert summary.units_done == 1
    summary = copying.run(trouble={"open": "user_error"})
    assert summary.stopped_by == "the model is not there. Name another."


def test_the_guard_stops_a_job_that_rots(copying: Any, write_shard: Any) -> None:
    write_shard("a", 400)
    trouble = {f"a/k{row:03d}": "reject" for row in range(150, 400)}
    summary = copying.run(JobOptions(max_rejected=0.2), trouble=trouble)
    assert summary.exit_code is ExitCode.STOPPED
    assert summary.stopped_by.startswith(
        "50 of 200 rows rejected, above --max-rejected 20.0%; most often corrupt (50). See rejects/ in the output"
    )
    assert summary.rows_in == 200
    assert copying.run(JobOptions(max_rejected=1.0), trouble=trouble).exit_code is ExitCode.OK


def test_the_guard_looks_at_small_jobs_when_they_end(copying: Any) -> None:
    trouble = {"a/k001": "reject", "b/k001": "reject"}
    summary = copying.run(JobOptions(max_rejected=0.1), trouble=trouble)
    assert summary.exit_code is ExitCode.STOPPED
    assert summary.stopped_by.startswith("2 of 15 rows rejected, above --max-rejected 10.0%; most often corrupt (2)")
    assert copying.rejected() == dict.fromkeys(trouble, "corrupt")
    assert copying.run(JobOptions(max_rejected=0.1)).exit_code is ExitCode.OK  # nothing was read, so nothing rots


def test_a_dry_run_says_why_and_writes_nothing(copying: Any) -> None:
    assert "a: due, the shard has not been read yet" in text_of(copying.job(scan=False))
    assert not copying.out.exists()
    copying.run()
    (copying.out / "b-00001.tar").unlink()
    stamps = copying.stamps()
    text = text_of(copying.job(scan=False))
    assert copying.stamps() == stamps
    assert "b-00001: due, b-00001.tar is missing (1 rows)" in text
    assert "1 due, 4 whole and current; nothing was written (--dry-run)" in text


def test_two_shards_of_one_name_are_refused_before_anything_is_written(copying: Any, write_shard: Any) -> None:
    write_shard("a", 2, folder="other")
    with pytest.raises(UserError, match=r"two shards named a, their outputs would collide"):
        copying.job(shards=[str(copying.shards / "a.tar"), str(copying.shards.parent / "other/a.tar")])
    assert not copying.out.exists()


def test_a_shard_that_is_no_tar_is_refused_before_anything_is_written(copying: Any) -> None:
    (copying.shards / "c.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(UserError, match=r"c.tar: not a tar file"):
        copying.job()
    assert not copying.out.exists()


def test_a_shard_that_vanishes_on_the_way_stops_the_job_and_harms_nothing(copying: Any) -> None:
    job = copying.job()
    (copying.shards / "b.tar").unlink()
    summary = run_job(job, JobOptions(), Console(file=io.StringIO()))
    assert summary.exit_code is ExitCode.BAD_INPUT
    assert "b.tar: cannot be read" in summary.stopped_by
    assert open_dataset(str(copying.out), "copies").faults[-1] == "b: not read yet"


def test_a_damaged_shard_is_accounted_for_row_by_row(copying: Any) -> None:
    path = copying.shards / "a.tar"
    data = path.read_bytes()
    path.write_bytes(data[: 512 * 12] + b"?" * 512 + data[512 * 13 :])  # the header of the seventh member
    summary = copying.run()
    assert (summary.exit_code, summary.rows_in, summary.rows_kept) == (ExitCode.OK, 12, 11)
    assert set(copying.rows()) == {key for key in ALL if key < "a/k006" or key[0] == "b"}
    assert copying.rejected() == {"(archive)": "truncated_member"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "sam"}, "was made from texts, this run reads sam. Name another --out"),
        ({"unit_rows": 8}, "laid out with --unit-rows 4, not 8. Leave it out, or name another --out"),
    ],
)
def test_a_directory_of_another_source_or_layout_is_refused(
    copying: Any, arguments: dict[str, Any], message: str
) -> None:
    copying.run()
    whole = copying.files()
    with pytest.raises(DatasetError, match=message):
        copying.job(**arguments)
    assert copying.files() == whole


def test_a_directory_of_another_kind_is_refused(copying: Any) -> None:
    copying.run()
    path = copying.out / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "captions", "stage": "caption"}))
    with pytest.raises(
        DatasetError, match=r"holds captions written by pipelines.caption, not copies. Name another --out"
    ):
        copying.job()


def test_a_directory_with_other_peoples_files_is_refused(copying: Any) -> None:
    copying.out.mkdir()
    (copying.out / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match=r"not empty and no latentmill dataset. Name a new or empty --out"):
        copying.job()
    assert [path.name for path in copying.out.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_directory_is_called_one(copying: Any) -> None:
    copying.out.write_text("x")
    with pytest.raises(DatasetError, match=r"a file, not a directory. Name a new or empty --out"):
        copying.run()
    assert copying.out.read_text() == "x"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_run_that_keeps_no_row_at_all_warns_and_says_where_the_reasons_are(copying: Any, kept: int) -> None:
    output = io.StringIO()
    trouble = dict.fromkeys(sorted(ALL)[kept:], "reject")
    summary = copying.run(trouble=trouble, console=Console(file=output, width=300))
    assert summary.rows_kept == kept
    warning = f"no row was kept. Is it the right input? Each row's reason is in {copying.out}/rejects"
    assert (warning in output.getvalue()) == (kept == 0)


def test_the_layout_of_a_directory_is_kept_when_it_is_not_asked_for(copying: Any) -> None:
    copying.run(unit_rows=8)
    assert copying.job(unit_rows=None).unit_rows == 8
    assert unit_rows_of(str(copying.out / "absent"), None, 1024) == 1024


def test_whole_shards_are_one_unit_each_on_demand(copying: Any) -> None:
    assert copying.run(unit_rows=0).units_done == 2
    assert [entry.unit for entry in open_dataset(str(copying.out), "copies").entries] == ["a", "b"]


def test_every_run_that_did_something_leaves_a_summary(copying: Any) -> None:
    copying.run(trouble={"b/k000": "reject"})
    copying.run()
    (path,) = (copying.out / "runs").iterdir()
    record = json.loads(path.read_text())
    assert record["exit_code"] == 0
    assert (record["stage"], record["units_done"], record["rows_in"], record["rows_kept"]) == ("copy", 5, 15, 14)
    assert (record["rejected"], record["rows_rejected"], record["due"]) == ({"corrupt": 1}, 1, {"not made yet": 5})
    assert set(record["phases"]) == {"decode", "write"}
    assert record["limited_by"].partition(" ")[0] in {"decode", "write", ""}


def test_a_job_into_a_url_is_the_same_job(copying: Any) -> None:
    url = f"memory://latentmill-job-{os.getpid()}"
    target = Target(url)
    try:
        copying.run()
        assert copying.run(out=url).units_done == 5
        assert copying.run(out=url).units_done == 0
        local = copying.files()
        remote = {p.removeprefix(target.root + "/") for p in target.fs.find(target.root)}
        assert {name for name in remote if not name.startswith("runs/")} == set(local)
        target.remove("a-00001.tar")
        assert copying.run(out=url).units_done == 1
        assert target.fs.cat_file(target.path("a-00001.tar")) == local["a-00001.tar"]
    finally:
        target.fs.rm(target.root, recursive=True)
