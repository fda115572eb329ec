"""A campaign of two arms at the least size: it makes the table, and one that was stopped goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.claims import campaign, data
from benchmarks.claims.alignment import MEASURES, align, look, rights
from benchmarks.claims.arms import ARMS, Sizes, arm_named
from benchmarks.claims.commands import command
from benchmarks.claims.figures import draw_figures
from benchmarks.claims.results import steps_to
from benchmarks.claims.table import tables
from curation.demo.detector.detector import Detector
from curation.scenes.drawing import draw
from curation.scenes.scene import Split, scene
from curation.scenes.truth import truth_of

SIZES = Sizes(
    drawn=60,
    drawn_for_pixel=60,
    drawn_for_test=20,
    prompts=2,
    steps=2,
    pixel_steps=1,
    batch=4,
    looks=1,
    sampler_steps=2,
)
DETECTOR = Detector()
ARMS_TRIED = [arm_named("dense"), arm_named("per-block-from-pixel")]


def trainings(lines: list[list[str]]) -> list[str]:
    """The arms that were trained, in order."""
    return [Path(line[2]).parts[-3] for line in lines if line[0] == "train"]


def test_a_stopped_campaign_goes_on_and_ends_with_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def stopped_while_it_draws(line: list[str], log: Path) -> None:
        ran.append(line)
        if line[:2] == ["evaluate", "generate"] and "per-block-from-pixel" in line[3]:
            raise SystemExit(143)
        command(line, log)

    monkeypatch.setattr(campaign, "command", stopped_while_it_draws)
    with pytest.raises(SystemExit, match="143"):
        campaign.run_campaign(tmp_path, ARMS_TRIED, [0], SIZES)
    assert trainings(ran) == ["pixel", "dense", "per-block-from-pixel"]
    assert "| dense | 1 |" in tables(tmp_path)
    assert "| per-block-from-pixel | 1 |" not in tables(tmp_path)

    again: list[list[str]] = []
    for module in (campaign, data):
        monkeypatch.setattr(module, "command", lambda line, log: (again.append(line), command(line, log)))
    campaign.run_campaign(tmp_path, ARMS_TRIED, [0], SIZES)
    assert trainings(again) == ["per-block-from-pixel"]  # whose own run finds its steps done
    assert {line[0] for line in again} == {"train", "evaluate"}
    assert "| per-block-from-pixel | 1 |" in tables(tmp_path)

    again.clear()
    campaign.run_campaign(tmp_path, ARMS_TRIED, [0], SIZES)
    assert not again
    align(tmp_path)
    assert "dense, by chance" in tables(tmp_path)
    draw_figures(tmp_path, tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"claims-loss.svg", "claims-grid.png"}


def test_the_steps_to_a_loss_lie_between_two_looks() -> None:
    curve = ((100, 0.8), (200, 0.4), (300, 0.3))
    assert steps_to(curve, 0.5) == pytest.approx(175)
    assert steps_to(curve, 0.9) == 100
    assert steps_to(curve, 0.3) == 300
    assert steps_to(curve, 0.2) is None


def test_runs_of_other_sizes_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text("{}")
    with pytest.raises(SystemExit, match="other sizes"):
        campaign.run_campaign(tmp_path, ARMS_TRIED, [0], SIZES)


def test_an_unknown_arm_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=f"no arm 'wide'; there are {ARMS[0].name}"):
        arm_named("wide")


def test_a_true_picture_is_read_as_what_it_shows() -> None:
    right = []
    for number in range(40):
        one = scene(0, number, split=Split.TEST, things=1)
        [looked] = look([draw(replace(one, height_px=192, width_px=192))], DETECTOR)
        right.append(rights(looked, truth_of(one)))
    shares = {name: sum(each[name] for each in right) / len(right) for name in right[0]}
    assert shares["ground"] == 1
    assert shares["colour and place"] > 0.7
    assert shares["noun"] > 0.9


def test_a_bare_ground_shows_no_thing_but_its_ground_is_right() -> None:
    one = scene(0, 3, split=Split.TEST, things=1)
    [bare] = look([draw(replace(one, things=(), height_px=128, width_px=128))], DETECTOR)
    assert bare.shown.colour == bare.shown.row == ""
    assert rights(bare, truth_of(one)) == {name: name == "ground" for name in MEASURES["caption"]}
