import importlib
import json
from pathlib import Path

import pytest
import torch

from pipelines.demo import closing_page
from pipelines.demo_steps import DemoSize, steps
from schemas.reading import open_dataset

SMALL = DemoSize(1, 16, 2, 12, 2, 3, 2, prompts=2, unit_rows=0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(out: Path, capsys: pytest.CaptureFixture[str], *only: str, more: tuple[str, ...] = ()) -> str:
    """Run the demo's commands (or some of them) in this process; what they said on stderr."""
    capsys.readouterr()
    for _, (module, *arguments) in steps(out, SMALL, workers=1):
        if not only or module.removeprefix("pipelines.") in only:
            assert importlib.import_module(module).main([*arguments, *more]) in (0, None), module
    return capsys.readouterr().err


def test_the_whole_flow_runs_is_current_afterwards_and_knows_what_hangs_on_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder"
    run(out, capsys)
    for kind in ("captions", "latents"):
        entries = open_dataset(str(out / kind), kind).require_whole().entries
        assert sum(entry.rows_in for entry in entries) == 24
        assert sum(sum(entry.rejected.values()) for entry in entries) == 4
    started = json.loads((out / "runs" / "align" / "config.json").read_text())
    assert started["init_from"].startswith(str(out / "runs" / "pixel"))
    assert (out / "samples" / "grid.png").stat().st_size > 0
    assert "What is drawn" in (out / "report.html").read_text()
    page = closing_page(out, 1.0)
    assert "by chance" in page
    assert "of the true pictures" in page.lower()

    assert run(out, capsys, "caption", "nouns", "measure", "latents", "text").count("nothing to do") == 8

    said = run(out, capsys, "caption", more=("--prompt", "laion"))
    assert "2 prompt changed" in said
    assert "input changed" in run(out, capsys, "nouns", more=("--dry-run",))
    assert "input changed" in run(out, capsys, "text", more=("--dry-run",))
