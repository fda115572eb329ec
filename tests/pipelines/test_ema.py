from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.ema import main
from pipelines.train import main as train
from pipelines.train import parser
from schemas.errors import ExitCode, UserError
from training.weights.files import load_weights


def arguments(features: Any, out: Path, *more: str) -> list[str]:
    data = ["--latents", str(features.latents), "--text", str(features.text), "--out", str(out)]
    run = ["--model", "tiny/2", "--steps", "12", "--global-batch", "8", "--device", "cpu", "--save-every", "12"]
    return [*data, *run, *more]


def test_an_average_is_put_together_from_what_a_run_has_kept(
    write_features: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "ema-0.08.safetensors"
    assert train(arguments(write_features(), run, "--power-ema", "--power-ema-every", "2")) == ExitCode.OK
    capsys.readouterr()
    assert main(["--run", str(run), "--std", "0.08", "--out", str(out)]) == ExitCode.OK
    assert capsys.readouterr().out.startswith(f"{out}: width 0.08 from 12 snapshots, off by 1.73% of its profile")
    config, tensors, metadata = load_weights(out)
    raw = load_weights(run / "weights" / "raw.safetensors")
    assert config == raw[0]
    assert metadata == raw[2] | {"kind": "ema", "power_ema_std": "0.08"}
    assert {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in raw[1].items()}


def test_a_run_without_such_averages_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no snapshots there") as caught:
        main(["--run", str(tmp_path), "--std", "0.08", "--out", str(tmp_path / "out.safetensors")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "widths"), [([], None), (["--power-ema"], []), (["--power-ema", "0.2", "0.05"], [0.2, 0.05])]
)
def test_widths_are_off_the_papers_pair_or_as_given(given: list[str], widths: list[float] | None) -> None:
    assert parser("").parse_args(["--latents", "l", "--text", "t", "--out", "o", *given]).power_ema == widths


@pytest.mark.parametrize("widths", [("0",), ("0.3",), ("0.1", "0.1"), ("nan",)])
def test_widths_that_are_none_are_refused(
    write_features: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], widths: tuple[str, ...]
) -> None:
    code = train(arguments(write_features(), tmp_path / "run", "--power-ema", *widths))
    assert code == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: --power-ema ")
