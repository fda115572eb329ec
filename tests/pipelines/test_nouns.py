import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy

from curation.nouns.merged import merged_counts
from pipelines.nouns import main
from schemas.dataset import (
    DATASET_FILE,
    PLAN_FILE,
    DatasetInfo,
    LedgerEntry,
    OutputFile,
    PlannedUnit,
    PlanRecord,
    RunFacts,
    ledger_path,
    table_path,
)
from schemas.errors import DatasetError, UserError
from schemas.reading import open_dataset
from schemas.record import to_json
from schemas.tables import CAPTIONS, NOUNS_PER_IMAGE


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real pipeline that tags dog, cat and ball as NOUN and Rex as PROPN."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    for word in ("dog", "cat", "ball"):
        ruler.add([[{"LOWER": word}]], {"POS": "NOUN"})
    ruler.add([[{"LOWER": "rex"}]], {"POS": "PROPN"})
    directory = tmp_path_factory.mktemp("taggers") / "lexicon"
    nlp.to_disk(directory)
    return directory


Caption = tuple[str | None, str]


def write_captions(root: Path, units: dict[str, list[Caption]]) -> Path:
    """A captions dataset whose rows have the given (raw_caption, caption)."""
    (root / "ledger").mkdir(parents=True, exist_ok=True)
    info = DatasetInfo("captions", 1, "caption", {}, "f" * 32, "webdataset", "abc123", 0)
    (root / DATASET_FILE).write_text(to_json(info))
    planned = tuple(PlannedUnit(name, name, 0, len(rows)) for name, rows in units.items())
    (root / PLAN_FILE).write_text(to_json(PlanRecord(tuple(units), planned)))
    for name, rows in units.items():
        table = pa.Table.from_pylist([caption_row(name, i, row) for i, row in enumerate(rows)], schema=CAPTIONS.arrow)
        pq.write_table(table, root / table_path(name))
        size = (root / table_path(name)).stat().st_size
        output = OutputFile(table_path(name), size, json.dumps(rows), len(rows))
        facts = RunFacts(0.0, {}, 1, "", {})
        entry = LedgerEntry(
            name, name, 0, len(rows), "f" * 32, (), len(rows), len(rows), {}, {}, outputs=(output,), run=facts
        )
        (root / ledger_path(name)).write_text(to_json(entry))
    return root


def caption_row(shard: str, number: int, caption: Caption) -> dict[str, Any]:
    whole = dict.fromkeys(("width", "height", "n_prompt_tokens", "n_tokens", "n_words", "rules_version", "seed"), 1)
    words = {"generated": caption[1], "status": "ok", "flags": [], "finish_reason": "stop", "prompt_id": "p"}
    return {"key": f"{number:05d}", "shard": shard, "raw_caption": caption[0], "caption": caption[1], **whole, **words}


def count(tagger: Path, out: Path, *inputs: object, options: Sequence[object] = ()) -> int:
    arguments = ["--captions", *inputs, "--out", out, "--tagger", tagger, *options]
    return main([str(argument) for argument in arguments])


def nouns(out: Path, column: str) -> dict[str, int]:
    with merged_counts(open_dataset(str(out), "nouns")) as merged:
        rows = [row for table in merged.rows(column) for row in table.to_pylist()]
    return {row["noun"]: row["tf_noun"] + row["tf_propn"] for row in rows}


def total(out: Path, column: str, name: str) -> int:
    with merged_counts(open_dataset(str(out), "nouns")) as merged:
        return merged.summary.total(column, name)


def test_a_captions_dataset_is_counted_by_both_its_columns(tagger: Path, tmp_path: Path) -> None:
    units: dict[str, list[Caption]] = {
        "00000": [("Rex", "the dog Rex and a ball"), (None, "a dog")],
        "00001": [("", "a cat"), ("dog dog", "")],
    }
    captions = write_captions(tmp_path / "captions", units)
    assert count(tagger, tmp_path / "nouns", captions) == 0
    assert nouns(tmp_path / "nouns", "raw_caption") == {"rex": 1, "dog": 2}
    assert nouns(tmp_path / "nouns", "caption") == {"dog": 2, "rex": 1, "ball": 1, "cat": 1}
    totals = json.loads((tmp_path / "nouns/summary.json").read_text())["totals"]
    assert (totals["raw_caption"]["captions"], totals["raw_caption"]["empty"]) == (2, 2)
    assert (totals["caption"]["captions"], totals["caption"]["empty"]) == (3, 1)


def test_the_table_goes_to_stdout_with_tagger_n_and_the_papers_rows(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(tmp_path / "captions", {"00000": [("Rex", "a dog"), (None, "a cat"), (None, "x")]})
    count(tagger, tmp_path / "nouns", captions, options=["--at", 2, 50])
    out = capsys.readouterr().out
    assert "SAM-LLaVA" in out
    assert "spaCy" in out
    assert "caption at 50: not shown, only 3 captions were counted." in out
    assert any(line.split()[:3] == ["caption", "NOUN+PROPN", "2"] for line in out.splitlines())
    assert any(line.split()[:3] == ["caption", "NOUN+PROPN", "1"] for line in out.splitlines()), "the common size"


def test_curves_coverage_and_changes_are_told_with_the_tagger_under_each_table(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(tmp_path / "captions", {"00000": [("Rex", "a dog and a ball")] * 300})
    (tmp_path / "list.txt").write_text("dog\nzebra\nteddy_bear\n")
    assert count(tagger, tmp_path / "nouns", captions, options=["--reference", tmp_path / "list.txt"]) == 0
    out = capsys.readouterr().out
    for table in ("growth of", "frequency in", "coverage by", "gained", "lost"):
        assert any(line.startswith(table) for line in out.splitlines()), table
    assert out.count(f"spaCy {spacy.__version__}; a noun is the word in lower case") == 5, "one for each table"
    assert "300 captions are fewer than the paper's 11,190,000" in out
    assert count(tagger, tmp_path / "nouns", captions, options=["--json", "--reference", tmp_path / "nouns"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "nouns/summary.json").read_text())
    assert [(n["noun"], n["before"], n["after"]) for n in record["comparison"]["lost"]] == [("rex", 300, 0)]
    assert [point["captions"] for point in record["growth"]["caption"]][-1] == 300
    assert record["ranks"]["caption"]["points"] == [[1, 300], [2, 300]]
    covered = record["coverage"]["caption"]
    assert (covered["entries"], covered["once"], covered["valid"], covered["outside"]) == (3, 2, 2, 0.0)


def test_two_columns_can_be_named_for_comparison(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(json.dumps({"short": "a dog", "long": "a dog and a cat"}) + "\n" for _ in range(200))
    (tmp_path / "a.jsonl").write_text(rows)
    options = ["--columns", "short", "long", "--compare", "short", "long"]
    assert count(tagger, tmp_path / "out", tmp_path / "a.jsonl", options=options) == 0
    out = capsys.readouterr().out
    assert any(line.split()[:4] == ["gained", "cat", "0", "200"] for line in out.splitlines())


def test_a_second_run_does_nothing_and_a_new_caption_renews_its_unit_alone(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units: dict[str, list[Caption]] = {"00000": [("a dog", "a dog")], "00001": [("a cat", "a cat")]}
    captions = write_captions(tmp_path / "captions", units)
    count(tagger, tmp_path / "nouns", captions)
    capsys.readouterr()
    count(tagger, tmp_path / "nouns", captions)
    assert "nothing to do: all 2 are whole and current" in capsys.readouterr().err
    write_captions(tmp_path / "captions", {**units, "00001": [("a cat", "Rex")]})
    count(tagger, tmp_path / "nouns", captions)
    assert "1 done, 1 already current" in capsys.readouterr().err
    assert nouns(tmp_path / "nouns", "caption") == {"dog": 1, "rex": 1}


def test_the_same_captions_give_the_same_bytes(tagger: Path, tmp_path: Path) -> None:
    captions = write_captions(tmp_path / "captions", {"00000": [("Rex", "a dog and a cat"), ("ball", "a dog")]})
    for name in ("one", "two"):
        count(tagger, tmp_path / name, captions)
    for file in ("00000.parquet", "totals/00000.parquet", "per_image/00000.parquet", "merged.parquet", "summary.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_captions_dataset_gives_the_nouns_of_each_image_too(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units: dict[str, list[Caption]] = {"00000": [("Rex", "the dog and Rex and a dog"), (None, "")]}
    captions = write_captions(tmp_path / "captions", units)
    assert count(tagger, tmp_path / "nouns", captions) == 0
    (table,) = open_dataset(str(tmp_path / "nouns"), "nouns").tables(NOUNS_PER_IMAGE, folder="per_image")
    nothing = {"nouns": 0, "propns": 0, "tokens": 0, "distinct": []}
    assert table.to_pylist() == [
        {"key": "00000", "shard": "00000", "column": "raw_caption"}
        | {"nouns": 0, "propns": 1, "tokens": 1, "distinct": ["rex"]},
        {"key": "00000", "shard": "00000", "column": "caption"}
        | {"nouns": 2, "propns": 1, "tokens": 7, "distinct": ["dog", "rex"]},
        {"key": "00001", "shard": "00000", "column": "raw_caption"} | nothing,
        {"key": "00001", "shard": "00000", "column": "caption"} | nothing,
    ]
    assert "per_image/: 4 rows" in capsys.readouterr().out


def test_the_nouns_of_each_image_can_be_left_out_and_files_have_none(tagger: Path, tmp_path: Path) -> None:
    captions = write_captions(tmp_path / "captions", {"00000": [("Rex", "a dog")]})
    assert count(tagger, tmp_path / "without", captions, options=["--no-per-image"]) == 0
    (tmp_path / "a.txt").write_text("a dog\n")
    assert count(tagger, tmp_path / "files", tmp_path / "a.txt") == 0
    assert not (tmp_path / "without/per_image").exists()
    assert not (tmp_path / "files/per_image").exists()
    assert count(tagger, tmp_path / "without", captions) == 0, "asked for after all"
    assert (tmp_path / "without/per_image/00000.parquet").exists()


def test_files_of_every_kind_give_the_same_counts(tagger: Path, tmp_path: Path) -> None:
    texts = ["a dog", "", "Rex has a ball\u2028and a dog"]
    pq.write_table(pa.table({"TEXT": texts}), tmp_path / "p.parquet")
    lines = "".join(json.dumps({"TEXT": t}) + "\n" for t in texts)
    (tmp_path / "j.jsonl").write_text(lines + "\n")
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "t.txt").write_bytes("\r\n".join(texts).encode("utf-8-sig") + b"\r\n")
    for name in ("p.parquet", "j.jsonl", "z.jsonl.gz", "t.txt"):
        assert count(tagger, tmp_path / f"out-{name}", tmp_path / name, options=["--columns", "TEXT"]) == 0
        assert nouns(tmp_path / f"out-{name}", "TEXT") == {"dog": 2, "rex": 1, "ball": 1}, name
        out = tmp_path / f"out-{name}"
        assert (total(out, "TEXT", "captions"), total(out, "TEXT", "empty")) == (2, 1), name


def test_several_files_by_glob_are_one_unit_each(tagger: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"part-{number}.txt").write_text("a dog\n" * (number + 1))
    assert count(tagger, tmp_path / "out", tmp_path / "part-*.txt") == 0
    assert len(open_dataset(str(tmp_path / "out"), "nouns").entries) == 3
    assert nouns(tmp_path / "out", "caption") == {"dog": 6}


def test_a_row_with_a_list_holds_several_captions(tagger: Path, tmp_path: Path) -> None:
    (tmp_path / "five.jsonl").write_text('{"captions": ["a dog", "a cat", null]}\n')
    count(tagger, tmp_path / "out", tmp_path / "five.jsonl", options=["--columns", "captions"])
    out = tmp_path / "out"
    assert (total(out, "captions", "captions"), total(out, "captions", "empty")) == (2, 1)


def test_rows_that_cannot_be_read_are_rejected_with_a_reason(tagger: Path, tmp_path: Path) -> None:
    lines = [b'{"text": "a dog"}', b"{broken", b'{"other": 1}', b'{"text": 7}', b"[1]", b'{"text": "\xff"}']
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(lines))
    assert count(tagger, tmp_path / "out", tmp_path / "bad.jsonl", options=["--columns", "text"]) == 0
    assert nouns(tmp_path / "out", "text") == {"dog": 1}
    rejects = pq.read_table(tmp_path / "out/rejects/bad.parquet").to_pylist()
    assert {row["reason"] for row in rejects} == {"bad_metadata"}
    details = [row["detail"] for row in rejects]
    for detail, part in zip(details, ("not JSON", "no text", "neither text nor", "a list", "not UTF-8"), strict=True):
        assert part in detail


def test_a_dry_run_writes_nothing(tagger: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n")
    assert count(tagger, tmp_path / "out", tmp_path / "a.txt", options=["--dry-run"]) == 0
    assert not (tmp_path / "out").exists()


def test_captions_that_are_not_whole_are_refused(tagger: Path, tmp_path: Path) -> None:
    captions = write_captions(tmp_path / "captions", {"00000": [("a", "b")], "00001": [("a", "b")]})
    (captions / table_path("00001")).unlink()
    with pytest.raises(DatasetError, match=r"00001\.parquet is missing"):
        count(tagger, tmp_path / "out", captions)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.jsonl", [], "--columns: say which columns"),
        ("a.parquet", ["--columns", "caption"], "no column caption; it has TEXT"),
        ("a.csv", [], "neither .parquet, .jsonl nor .txt"),
        ("a.txt", ["--columns", "one", "two"], "a text file is one column"),
        ("a.txt", ["--at", "0"], "at least 1"),
        ("a.txt", ["--compare", "caption", "other"], "--compare: other is not counted"),
        ("a.txt", ["--reference", "none.txt"], "no such file"),
        ("none.txt", [], "no such shard"),
        ("a.txt", ["--lemmas"], "sets no lemmas"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_line(
    tagger: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "a.txt").write_text("a dog\n")
    (tmp_path / "a.csv").write_text("a dog\n")
    pq.write_table(pa.table({"TEXT": ["a dog"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message) as caught:
        count(tagger, tmp_path / "out", tmp_path / name, options=options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_help_does_not_load_the_libraries() -> None:
    code = (
        "import sys\ntry:\n    from pipelines.nouns import main; main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'spacy', 'torch', 'ray', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
