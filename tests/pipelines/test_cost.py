import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.cost import main
from pipelines.train import main as train
from schemas.errors import ExitCode, UserError

SMALL = "--model tiny/2 --global-batch 8 --lr 1e-3 --warmup 2 --clip 1 --device cpu --log-every 2 --save-every 2"


@pytest.fixture
def run(write_features: Callable[..., Any], tmp_path: Path) -> Path:
    """A run of four steps that was started twice."""
    made = write_features()
    data = ["--latents", str(made.latents), "--text", str(made.text), "--manifest-cache", str(tmp_path / "cache")]
    for steps in ("2", "4"):
        assert train([*data, *SMALL.split(), "--steps", steps, "--out", str(tmp_path / "mine")]) == ExitCode.OK
    return tmp_path / "mine"


def test_a_run_tells_what_all_its_starts_cost(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(run), "--json", str(tmp_path / "cost.json")]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "mine (no stage), 2 starts" in printed
    assert "Table 2: peers" in printed
    assert "this run" in printed
    assert "Table 4: stages" in printed
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["together"]["images"] == 32
    assert found["runs"]["mine"] == found["together"]
    assert sum(found["together"]["device_days"].values()) > 0

    main(["--run", str(run), str(run)])
    assert "together" in capsys.readouterr().out


def test_only_a_fid_stands_beside_fids(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = tmp_path / "score.json"
    frechet = {"name": "FID", "distance": 9.123, "samples": {"count": 30_000}}
    score.write_text(json.dumps({"frechet": frechet}))
    main(["--run", str(run), "--score", str(score)])
    assert "9.12 (N=30,000)" in capsys.readouterr().out
    score.write_text(json.dumps({"frechet": frechet | {"name": "Fréchet distance (vae-latents:vae)"}}))
    with pytest.raises(UserError, match="is no FID"):
        main(["--run", str(run), "--score", str(score)])
    score.write_text("{}")
    with pytest.raises(UserError, match="no scores"):
        main(["--run", str(run), "--score", str(score)])


def test_a_run_without_a_record_is_told(run: Path, tmp_path: Path) -> None:
    (run / "cost.json").unlink()
    with pytest.raises(UserError, match="has recorded no cost"):
        main(["--run", str(run)])
    with pytest.raises(UserError, match="no training run there"):
        main(["--run", str(tmp_path)])
