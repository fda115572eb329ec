import io
import json
import threading
from pathlib import Path

import pytest
from rich.console import Console

from curation.execution import progress as progress_module
from curation.execution.progress import Progress
from curation.execution.run_unit import UnitFailed
from curation.execution.stage import Unit
from curation.execution.summary import JobSummary
from schemas.dataset import LedgerEntry, OutputFile, PlannedUnit, RunFacts
from schemas.errors import ExitCode

PLANNED = PlannedUnit("a-00000", "a", 0, 10)


def entry(rejected: int = 0, **phases: float) -> LedgerEntry:
    outputs = (OutputFile("a.parquet", 1_500_000, "", 10 - rejected),)
    facts = RunFacts(1.0, phases, 1, "", {})
    refused = {"corrupt": rejected} if rejected else {}
    return LedgerEntry("a-00000", "a", 0, 10, "f", (), 10, 10 - rejected, refused, {"words": 3}, outputs, facts)


def failed(name: str, reason: str) -> UnitFailed:
    return UnitFailed(Unit(PlannedUnit(name, "a", 0, 10), "a.tar", ()), reason)


def console(width: int = 200) -> Console:
    return Console(file=io.StringIO(), width=width)


def text_of(found: Console) -> str:
    return found.file.getvalue()


def test_the_line_says_how_far_how_fast_and_what_limits() -> None:
    summary = JobSummary("copy", "out")
    bar = Progress(console(), summary, lambda: 3)
    bar.rows_due = 40
    assert bar.line().startswith("copy: 0/? units, 3/40+ rows, ")
    summary.add(entry(rejected=2, decode=3.0, model=1.0))
    summary.fail(failed("a-00001", "x"))
    bar.units_due = 4
    line = bar.line()
    assert line.startswith("copy: 2/4 units, 13/40 rows, ")
    for part in (" rows/s", "2 rejected", " left", "1 units failed", "limited by decode (75% of the workers' time)"):
        assert part in line
    assert "\n" not in line


def test_where_no_terminal_is_plain_lines_come_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_LINE_EVERY", 0.01)
    out, asked = console(), threading.Event()

    def rows() -> int:
        if text_of(out).count("\n") >= 2:
            asked.set()
        return 7

    with Progress(out, JobSummary("copy", "out"), rows):
        assert asked.wait(20)
    lines = text_of(out).splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("copy: 0/? units, 7/0+ rows") for line in lines)


def test_on_a_terminal_the_line_leaves_nothing_behind() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(out, JobSummary("copy", "out"), lambda: 0):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0m00s"), (59.6, "1m00s"), (3_725, "1h02m"), (-5, "0m00s")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert progress_module._duration(seconds) == text


def test_the_summary_table_says_everything_once() -> None:
    summary = JobSummary("copy", "out/[dir]", units_current=2, seconds=4.0)
    summary.due.update({"not made yet": 2, "suffix changed": 1})
    summary.add(entry(rejected=2, decode=3.0, write=1.0))
    summary.fail(failed("b-00000", "KeyError: '[/nonsense]' in [red]"))
    out = console()
    summary.print(out)
    text = text_of(out)
    for part in (
        "pipelines.copy",
        "out/[dir]",
        "1 done, 2 already current (were due: 2 not made yet, 1 suffix changed)",
        "10 in = 8 kept + 2 rejected",
        "corrupt",
        "words",
        "4.0 s, 2.5 rows/s",
        "decode (75% of the workers' time)",
        "1.50 MB",
        "KeyError: '[/nonsense]' in [red]",
    ):
        assert part in text


def test_many_failures_stay_a_short_table() -> None:
    summary = JobSummary("copy", "out")
    for number in range(25):
        summary.fail(failed(f"a-{number:05d}", "x"))
    out = console()
    summary.print(out)
    assert text_of(out).count("failed a-") == 10
    assert "and 15 more units, all in the run's JSON" in text_of(out)


def test_the_json_holds_what_the_table_does(tmp_path: Path) -> None:
    summary = JobSummary("copy", "out", seconds=2.0, exit_code=ExitCode.UNITS_FAILED)
    summary.add(entry(rejected=1, decode=1.0))
    summary.fail(failed("b", "why"))
    record = json.loads(json.dumps(summary.as_json()))
    assert record["failed"] == {"b": "why"}
    assert (record["exit_code"], record["rows_per_second"], record["rows_rejected"]) == (1, 5.0, 1)
    assert (record["rejected"], record["counts"], record["phases"]) == ({"corrupt": 1}, {"words": 3}, {"decode": 1.0})
    assert record["limited_by"].startswith("decode")


def test_asking_from_another_thread_while_the_job_adds_is_safe() -> None:
    summary, wrong = JobSummary("copy", "out"), []
    bar, done = Progress(console(), summary, lambda: 0), threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                bar.line()
        except RuntimeError as error:
            wrong.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(3000):
        summary.add(entry(**{f"phase {number}": 1.0}))
    done.set()
    thread.join()
    assert wrong == []
