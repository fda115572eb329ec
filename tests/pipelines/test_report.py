"""The command: what it writes, and what it says of bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import report
from pipelines.command import run


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code, and what it said on stderr."""
    with pytest.raises(SystemExit) as ended:
        run(report.main, arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


def test_a_page_and_its_numbers_are_written(
    write_features: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features({(64, 64): 9, (64, 96): 3}, without_text=(0,), without_latents=(1, 2))
    out = tmp_path / "made" / "data.html"
    arguments = ["--latents", str(made.latents), "--text", str(made.text), "--out", str(out)]
    assert report.main(arguments) == 0
    assert "joined: 12 in = 9 kept + 3 lost" in capsys.readouterr().out
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["corpora"][0]["latents"]["buckets"] == {"64x64": 7, "64x96": 3}
    assert out.with_suffix(".md").read_text().startswith("---\n")
    assert sorted(path.name for path in out.parent.iterdir()) == ["data.html", "data.json", "data.md"]
    before = {path: path.stat().st_mtime_ns for path in out.parent.iterdir()}
    assert report.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.parent.iterdir()} == before


def test_datasets_with_names_stand_side_by_side(
    write_features: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_features({(64, 64): 4})
    out = tmp_path / "two.html"
    arguments = ["--latents", f"first={made.latents}", "--latents", f"second={made.latents}"]
    arguments += ["--text", f"second={made.text}", "--out", str(out)]
    assert report.main(arguments) == 0
    assert "second: joined: 4 in = 4 kept + 0 lost" in capsys.readouterr().out
    record = json.loads(out.with_suffix(".json").read_text())
    assert [(one["name"], one["text"] is None) for one in record["corpora"]] == [("first", True), ("second", False)]
    assert "first · second" in out.read_text()


def test_datasets_are_left_as_they_are(write_features: Callable[..., Any], tmp_path: Path) -> None:
    made = write_features()
    before = {path: path.stat().st_mtime_ns for path in made.latents.parent.rglob("*")}
    report.main(["--latents", str(made.latents), "--out", str(tmp_path / "r.html")])
    assert {path: path.stat().st_mtime_ns for path in made.latents.parent.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--captions", "{tmp}", "--out", "{tmp}/r.html"], "no latentmill dataset"),
        (["--text", "{latents}", "--out", "{tmp}/r.html"], "a latents dataset, expected text"),
        (["--run", "{tmp}", "--out", "{tmp}/r.html"], "no training run"),
        (["--out", "{tmp}/r.html"], "nothing to report on"),
        (["--latents", "{latents}", "--out", "{tmp}/r.txt"], "not an HTML file's name"),
        (["--latents", "{latents}", "--out", "{tmp}/d.html"], "a directory"),
        (["--latents", "{latents}", "--shards", "{tmp}/no.tar", "--out", "{tmp}/r.html"], "no such shard"),
        (["--latents", "{latents}", "--source", "sam", "--out", "{tmp}/r.html"], "belong together"),
        (["--latents", "{latents}", "--latents", "{latents}", "--out", "{tmp}/r.html"], "given twice without a name"),
        (["--latents", "a={latents}", "--latents", "a={latents}", "--out", "{tmp}/r.html"], "a is given twice"),
        (["--latents", "a={latents}", "--latents", "{latents}", "--out", "{tmp}/r.html"], "this one has none"),
        (["--latents", "a={latents}", "--source", "b=sam", "--out", "{tmp}/r.html"], "no dataset is called b"),
        (["--latents", "{latents}", "--select", "{tmp}/no.parquet", "--out", "{tmp}/r.html"], "no such file"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    arguments: list[str],
    words: str,
    write_features: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    latents = write_features().latents
    (tmp_path / "d.html").mkdir()
    code, error = told([a.format(tmp=tmp_path, latents=latents) for a in arguments], capsys)
    assert code == 2
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
