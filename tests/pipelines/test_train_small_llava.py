from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipelines.train_small import main
from schemas.errors import UserError

TRIAL = ["--steps", "2", "--card-scenes", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`out/` and `work/` of a trial of few steps."""
    folder = tmp_path_factory.mktemp("small")
    assert main(["llava", "--out", str(folder / "out"), "--work", str(folder / "work"), *TRIAL]) == 0
    return folder


def test_a_trial_leaves_a_checkpoint_that_loads_as_any_other_and_a_card(made: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(made / "out", dtype="auto")
    processor = AutoProcessor.from_pretrained(made / "out")
    assert model.dtype == torch.float16
    assert processor.tokenizer.padding_side == "left"
    assert "| noun recall |" in (made / "out" / "README.md").read_text(encoding="utf-8")


def test_the_same_command_gives_the_same_weights_and_takes_the_taught_tower_where_it_is(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_file(made / "out" / "model.safetensors")
    for work, words in ((tmp_path / "work", "right answers of the tower"), (made / "work", "the tower is taken from")):
        out = tmp_path / words.split()[0]
        assert main(["llava", "--out", str(out), "--work", str(work), *TRIAL]) == 0
        assert words in capsys.readouterr().out
        again = load_file(out / "model.safetensors")
        assert first.keys() == again.keys()
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_card_can_be_made_without_training(made: Path) -> None:
    card = made / "out" / "README.md"
    before = card.read_text(encoding="utf-8")
    card.unlink()
    assert main(["llava", "--out", str(made / "out"), "--card-only", *TRIAL]) == 0
    table = [line for line in before.splitlines() if line.startswith("|")]
    assert [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("|")] == table


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "needs --work"),
        (["--work", "w", "--steps", "0"], "--steps"),
        (["--card-only"], "no checkpoint there"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(["llava", "--out", str(tmp_path / "out"), *more])
