"""The canary in a whole captioning job. The model has random weights, so its captions are as bad as can be."""

from pathlib import Path

import pytest

from curation.scenes.shards import write_laion_shards
from pipelines import caption
from pipelines.command import run
from schemas.reading import open_dataset, read_ledger

ROWS = 12


def ends(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], canary: int, *more: str) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    shards = tmp_path / "shards"
    if not shards.exists():
        write_laion_shards(shards, shards=1, rows=ROWS, broken=0)
    given = ["--shards", str(shards / "*.tar"), "--source", "webdataset", "--model", str(model)]
    given += ["--out", str(tmp_path / "captions"), "--max-new-tokens", "6", "--unit-rows", "4"]
    with pytest.raises(SystemExit) as exit_:
        run(caption.main, [*given, "--canary", str(canary), *more])
    return int(exit_.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_bad_first_captions_stop_the_job_and_are_shown(
    tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    code, said = ends(tmp_path, llava, capsys, 3, "--workers", workers)
    assert code == 3
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: canary: of the first 3 captions ")
    shown = [line for line in said.splitlines() if line.startswith("  00000/")]
    assert 1 <= len(shown) <= 3
    assert read_ledger(str(tmp_path / "captions")).entries == ()
    assert ends(tmp_path, llava, capsys, 3, "--workers", workers)[0] == 3


def test_without_the_canary_or_with_fewer_pictures_than_it_wants_the_job_ends(
    tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(tmp_path, llava, capsys, ROWS + 1)[0] == 0
    assert sum(entry.rows_kept for entry in open_dataset(str(tmp_path / "captions"), "captions").entries) == ROWS


def test_a_job_that_goes_on_is_not_stopped_and_one_under_a_new_prompt_is(
    tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(tmp_path, llava, capsys, 0)[0] == 0
    (tmp_path / "captions" / "00000-00001.parquet").unlink()
    assert ends(tmp_path, llava, capsys, 4)[0] == 0
    code, said = ends(tmp_path, llava, capsys, 4, "--prompt", "What is this?")
    assert (code, "error: canary: of the first 4" in said) == (3, True)


def test_the_canary_changes_no_caption(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(tmp_path, llava, capsys, 0)[0] == 0
    code, said = ends(tmp_path, llava, capsys, 2)
    assert (code, "nothing to do" in said) == (0, True)


def test_a_negative_canary_is_refused(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ends(tmp_path, llava, capsys, -1)
    assert (code, said) == (2, "error: --decode-threads and --canary must not be negative.\n")
