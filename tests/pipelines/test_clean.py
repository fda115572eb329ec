import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from captions_dataset import PROMPT, write_captions

from curation.demo.models import make_t5
from pipelines import clean, nouns, verify
from pipelines.command import run
from schemas.reading import open_dataset
from schemas.tables import CAPTIONS

DOG = "The image features a brown dog that runs over the wet sand. Behind it the sea is calm and grey."
BOATS = "Three small boats lie in a quiet harbour below a row of white houses with red roofs."
BARN = "An old red barn stands in a field of yellow wheat under a dark and stormy evening sky."
TEXTS = [DOG, BOATS, BARN]


def arguments(captions: Path, out: Path, *more: str) -> list[str]:
    return ["--captions", str(captions), "--out", str(out), *more]


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    dataset = open_dataset(str(out), "captions").require_whole()
    rows = (row for table in dataset.tables(CAPTIONS) for row in table.to_pylist())
    return {f"{row['shard']}/{row['key']}": row for row in rows}


def statuses(out: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in rows_of(out).items()}


def made(out: Path) -> dict[str, str]:
    """When each unit of the cleaned dataset was made, as far as files can tell."""
    return {p.stem: (out / "ledger" / p.name).stat().st_mtime_ns for p in (out / "ledger").glob("*.json")}


def data_of(out: Path) -> dict[str, bytes]:
    """All files but those that tell how a run went; of ledger entries, all but that."""
    data = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        parts = path.relative_to(out).parts
        if "runs" in parts:
            continue
        data["/".join(parts)] = path.read_bytes()
        if "ledger" in parts:
            record = json.loads(path.read_bytes())
            data["/".join(parts)] = json.dumps({k: v for k, v in record.items() if k != "run"}).encode()
    return data


def fails(given: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run(clean.main, given)
    return int(exit_.value.code or 0), capsys.readouterr().err


def test_captions_are_judged_again_and_all_that_the_engine_said_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(
        tmp_path / "captions", {"s0": TEXTS, "s1": [DOG + " The dog", ""]}, caption="", status="ok"
    )
    out = tmp_path / "cleaned"
    assert clean.main(arguments(captions, out)) == 0
    before, after = rows_of(captions), rows_of(out)
    assert list(before) == list(after)
    judged = {"caption", "status", "flags", "n_t5_tokens", "n_words", "repeated_4grams", "compression", "rules_version"}
    for name, row in after.items():
        assert {k: v for k, v in row.items() if k not in judged} == {
            k: v for k, v in before[name].items() if k not in judged
        }
    assert statuses(out) == {"s0/000": "ok", "s0/001": "ok", "s0/002": "ok", "s1/000": "trimmed", "s1/001": "empty"}
    assert after["s0/000"]["caption"].startswith("A brown dog that runs")
    assert after["s0/000"]["flags"] == ["stock_opening"]
    table = capsys.readouterr().out
    assert "ok                               5 100.00%             3  60.00%" in table
    assert "trimmed                          0   0.00%             1  20.00%" in table
    assert "flag stock_opening" in table


def test_a_second_run_does_nothing_and_a_changed_threshold_makes_every_unit_due(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(tmp_path / "captions", {"s0": TEXTS, "s1": TEXTS[:2]})
    out = tmp_path / "cleaned"
    assert clean.main(arguments(captions, out)) == 0
    before = data_of(out)
    capsys.readouterr()
    assert clean.main(arguments(captions, out)) == 0
    assert capsys.readouterr().err.count("nothing to do: all 2 are whole and current") == 2
    assert data_of(out) == before
    assert clean.main(arguments(captions, out, "--set", "min_words=18", "--dry-run")) == 0
    assert capsys.readouterr().err.count("due, thresholds.min_words changed") == 2
    assert data_of(out) == before
    assert clean.main(arguments(captions, out, "--set", "min_words=18")) == 0
    assert statuses(out)["s0/001"] == "too_short"
    assert open_dataset(str(out), "captions").info.config["thresholds"]["min_words"] == 18


def test_the_same_text_on_three_rows_is_marked_wherever_they_lie(tmp_path: Path) -> None:
    shards = {"s0": [BOATS, DOG, BARN], "s1": [BOATS.upper(), DOG], "s2": [f"  {BOATS[:-1]} !"]}
    captions = write_captions(tmp_path / "captions", shards)
    assert clean.main(arguments(captions, tmp_path / "cleaned")) == 0
    expected = {"s0/000": "duplicate_text", "s0/001": "ok", "s0/002": "ok"}
    expected |= {"s1/000": "duplicate_text", "s1/001": "ok", "s2/000": "duplicate_text"}
    assert statuses(tmp_path / "cleaned") == expected
    assert clean.main(arguments(captions, tmp_path / "two", "--set", "duplicate_rows=2")) == 0
    assert statuses(tmp_path / "two")["s0/001"] == "duplicate_text"
    assert clean.main(arguments(captions, tmp_path / "never", "--set", "duplicate_rows=0")) == 0
    assert set(statuses(tmp_path / "never").values()) == {"ok"}
    assert not (tmp_path / "never" / "inputs").exists()


def test_only_units_whose_rows_or_repeated_texts_changed_are_made_again(tmp_path: Path) -> None:
    shards = {"s0": [BOATS, DOG], "s1": [BARN, BOATS], "s2": ["A plain white plate on a table.", DOG]}
    out = tmp_path / "cleaned"
    write_captions(tmp_path / "captions", shards)
    assert clean.main(arguments(tmp_path / "captions", out)) == 0
    first = made(out)
    shutil.rmtree(tmp_path / "captions")
    write_captions(tmp_path / "captions", shards | {"s2": [BARN, DOG]})
    assert clean.main(arguments(tmp_path / "captions", out)) == 0
    second = made(out)
    assert [name for name in first if first[name] != second[name]] == ["s2"]
    shutil.rmtree(tmp_path / "captions")
    write_captions(tmp_path / "captions", shards | {"s2": [BOATS, DOG]})  # the third of its kind
    assert clean.main(arguments(tmp_path / "captions", out)) == 0
    third = made(out)
    assert sorted(name for name in first if second[name] != third[name]) == ["s0", "s1", "s2"]
    assert [name for name, status in statuses(out).items() if status == "duplicate_text"] == [
        "s0/000",
        "s1/001",
        "s2/000",
    ]


def test_the_prompt_of_the_captions_is_known_to_the_leak_rule(tmp_path: Path) -> None:
    echo = f"{PROMPT.upper()}: a brown dog runs over wet sand, and the sea is calm."
    captions = write_captions(tmp_path / "captions", {"s0": [echo, DOG]})
    assert clean.main(arguments(captions, tmp_path / "cleaned")) == 0
    assert statuses(tmp_path / "cleaned") == {"s0/000": "leak", "s0/001": "ok"}


def test_t5_tokens_are_counted_and_flagged_where_a_tokenizer_is_given(tmp_path: Path) -> None:
    make_t5(tmp_path / "t5")
    long = " ".join(f"Picture {n} of the wall shows a ship of the year {1700 + n} near port {n}." for n in range(40))
    captions = write_captions(tmp_path / "captions", {"s0": [DOG, long]})
    assert clean.main(arguments(captions, tmp_path / "a", "--set", "max_compression=9", "max_repeated_4grams=1")) == 0
    assert {row["n_t5_tokens"] for row in rows_of(tmp_path / "a").values()} == {None}
    more = ["--t5-tokenizer", str(tmp_path / "t5"), "--set", "max_compression=9", "max_repeated_4grams=1"]
    assert clean.main(arguments(captions, tmp_path / "b", *more, "max_alike_sentences=99")) == 0
    rows = rows_of(tmp_path / "b")
    assert rows["s0/000"]["n_t5_tokens"] > 10
    assert {"over_120", "over_300"} <= set(rows["s0/001"]["flags"])


def test_flags_that_no_rule_set_stay(tmp_path: Path) -> None:
    captions = write_captions(tmp_path / "captions", {"s0": [BOATS]}, flags=["no_caption", "open_end"])
    assert clean.main(arguments(captions, tmp_path / "cleaned")) == 0
    assert rows_of(tmp_path / "cleaned")["s0/000"]["flags"] == ["no_caption"]


def test_the_output_is_a_captions_dataset_that_others_take_and_that_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(tmp_path / "captions", {"s0": TEXTS, "s1": TEXTS}, unit_rows=2)
    assert clean.main(arguments(captions, tmp_path / "cleaned")) == 0
    assert verify.main([str(tmp_path / "cleaned")]) == 0
    assert " overlap" not in capsys.readouterr().out
    assert clean.main(arguments(tmp_path / "cleaned", tmp_path / "again")) == 0
    first, second = rows_of(tmp_path / "cleaned"), rows_of(tmp_path / "again")
    assert first == second
    assert nouns.main(["--captions", str(tmp_path / "cleaned"), "--out", str(tmp_path / "nouns")]) == 0


def test_ray_workers_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    captions = write_captions(tmp_path / "captions", {"s0": TEXTS, "s1": TEXTS, "s2": TEXTS}, unit_rows=2)
    assert clean.main(arguments(captions, tmp_path / "inline")) == 0
    assert clean.main(arguments(captions, tmp_path / "ray", "--executor", "ray")) == 0
    assert data_of(tmp_path / "inline") == data_of(tmp_path / "ray")


CHILD = """
import sys
from fault_points import kill_at
from curation.captions import clean_duplicates
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import clean
from pipelines.command import run
places = {"publish": (Target, "publish"), "keep": (UnitWriter, "keep"), "commit": (UnitWriter, "commit"),
          "repeated": (clean_duplicates, "store_repeated")}
where, call, moment = sys.argv[1].split(":")
kill_at(places, where, int(call), moment)
run(clean.main, sys.argv[2:])
"""


@pytest.mark.parametrize(
    "kill",
    [
        "publish:2:after",  # the hashes' dataset.json is there
        "keep:4:after",  # in the first pass
        "commit:2:after",
        "repeated:1:before",  # all is hashed, nothing counted
        "publish:12:before",
        "keep:11:after",  # in the second pass
        "commit:5:before",
    ],
)
def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(tmp_path: Path, kill: str) -> None:
    captions = write_captions(tmp_path / "captions", {"s0": [*TEXTS, BOATS], "s1": [*TEXTS, DOG]}, unit_rows=3)
    assert clean.main(arguments(captions, tmp_path / "undisturbed")) == 0
    given = arguments(captions, tmp_path / "killed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests/support", "."]), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, kill, *given], cwd=root, env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert clean.main(given) == 0
    assert data_of(tmp_path / "killed") == data_of(tmp_path / "undisturbed")


def test_what_cannot_work_stops_in_one_line_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out = write_captions(tmp_path / "captions", {"s0": TEXTS}), tmp_path / "cleaned"
    cases = {
        "threshold 'min_word': unknown; known are min_words": arguments(captions, out, "--set", "min_word=3"),
        "threshold 'min_words=few': int expected": arguments(captions, out, "--set", "min_words=few"),
        "threshold min_words: given twice": arguments(captions, out, "--set", "min_words=1", "min_words=2"),
        "threshold trim_keeps=2: must be a number from 0 to 1": arguments(captions, out, "--set", "trim_keeps=2"),
        "duplicate_rows=1: would call every text": arguments(captions, out, "--set", "duplicate_rows=1"),
        "is the dataset that is read": arguments(captions, captions),
        "no latentmill dataset": arguments(tmp_path / "nowhere", out),
        "no such directory": arguments(captions, out, "--t5-tokenizer", "/nowhere/t5"),
    }
    for message, given in cases.items():
        code, said = fails(given, capsys)
        assert (code, said.count("\n")) == (2, 1), said
        assert message in said
        assert not out.exists()


def test_the_captions_of_another_dataset_never_get_into_a_cleaned_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out = write_captions(tmp_path / "captions", {"s0": TEXTS}), tmp_path / "cleaned"
    assert clean.main(arguments(captions, out)) == 0
    info = json.loads((captions / "dataset.json").read_text()) | {"dataset_id": "other"}
    (captions / "dataset.json").write_text(json.dumps(info))
    code, said = fails(arguments(captions, out), capsys)
    assert (code, "was made from captions:c0ffee" in said) == (2, True)
