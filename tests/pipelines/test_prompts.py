from pathlib import Path

import pytest
from drawing_models import write_t5

from pipelines.prompts import main
from schemas.errors import ExitCode, StorageError
from training.watching.grids import read_prompts_file


def test_prompts_are_embedded_with_their_true_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t5, out = str(write_t5(tmp_path / "t5")), tmp_path / "made" / "prompts.safetensors"
    arguments = ["--prompts", "a red fox", "a", "--t5", t5, "--out", str(out), "--device", "cpu", "--max-tokens", "3"]
    assert main(arguments) == ExitCode.OK
    said = capsys.readouterr().out
    assert "only the first 3 tokens are used of: a red fox" in said
    found = read_prompts_file(str(out))
    assert found.prompts == ("a red fox", "a")
    assert found.lengths.tolist() == [3, 2]
    assert found.text.shape == (2, 3, 16)


def test_an_out_that_is_a_directory_is_told_in_one_line(tmp_path: Path) -> None:
    t5 = str(write_t5(tmp_path / "t5"))
    with pytest.raises(StorageError, match=r"cannot be written .*Is a directory"):
        main(["--prompts", "a", "--t5", t5, "--out", str(tmp_path), "--device", "cpu"])
