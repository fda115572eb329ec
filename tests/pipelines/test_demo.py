import importlib
import json
from pathlib import Path

import pytest
import torch

from pipelines.demo import steps
from schemas.reading import open_dataset


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_whole_flow_runs_and_a_second_run_finds_everything_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder"
    for _, line in steps(out, workers=1, training_steps=3, rows=8, teach_steps=0):
        assert importlib.import_module(line[0]).main(line[1:]) in (0, None), line
    for kind in ("captions", "latents"):
        entries = open_dataset(str(out / kind), kind).require_whole().entries
        assert [sum(e.rows_in for e in entries), sum(sum(e.rejected.values()) for e in entries)] == [24, 6]
    assert (out / "samples" / "grid.png").stat().st_size > 0
    assert "<html" in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())
    capsys.readouterr()
    for _, line in steps(out, workers=1, training_steps=3, rows=8, teach_steps=0)[:7]:
        assert importlib.import_module(line[0]).main(line[1:]) in (0, None), line
    assert capsys.readouterr().err.count("nothing to do") == 4
