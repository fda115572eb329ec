import importlib
from pathlib import Path

import pytest
import torch

from pipelines.demo import steps
from schemas.reading import open_dataset

SMALL = {"workers": 1, "training_steps": 3, "rows": 8}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(out: Path, capsys: pytest.CaptureFixture[str], *only: str, more: tuple[str, ...] = ()) -> str:
    """Run the demo's commands (or some of them) in this process; what they said on stderr."""
    capsys.readouterr()
    for _, (module, *arguments) in steps(out, **SMALL):
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
        assert sum(sum(entry.rejected.values()) for entry in entries) == 6
    assert (out / "samples" / "grid.png").stat().st_size > 0
    assert "<html" in (out / "report.html").read_text()

    assert run(out, capsys, "caption", "nouns", "latents", "text").count("nothing to do") == 4

    said = run(out, capsys, "caption", more=("--prompt", "laion"))
    assert "3 prompt changed" in said
    assert "0 due, 3 whole and current" in run(out, capsys, "latents", more=("--dry-run",))
    for command in ("nouns", "text"):
        assert "input changed" in run(out, capsys, command, more=("--dry-run",))
