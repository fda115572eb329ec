import pytest

from training.cost.ledger import CostRecord, Session
from training.cost.published import TABLE_4
from training.cost.tables import CostedRun, as_text, notes, summary_rows, table_2, table_4
from training.stages import STAGES

DAY = 86_400.0


def costed(name: str, stage: str, days: float, images: int, **changes: object) -> CostedRun:
    session = Session("2026-11-28", {"H100": 8}, days * DAY / 8, 0, images, 7.2e6, days * DAY / 8, "NVML")
    return CostedRun(name, stage, 1024, 2e-5, 611_349_152, CostRecord((session,)))


def row_of(rows: list[list[str]], name: str) -> list[str]:
    return next(row for row in rows if row[0].strip() == name)


def test_the_own_row_stands_below_the_peers() -> None:
    run = costed("mine", "pixel", 12.0, 307_200_000)
    rows = table_2(run.cost, run.parameters, "9.50 (N=30,000)")
    assert row_of(rows, "PixArt-α *") == ["PixArt-α *", "0.6B", "25M", "–", "7.32", "753 A100"]
    assert rows[-1] == ["this run", "0.611B", "–", "307.2M", "9.50 (N=30,000)", "12 H100"]
    assert {len(row) for row in rows} == {6}
    assert table_2(run.cost, 0)[-1][4] == "–"


def test_each_run_stands_below_its_stage() -> None:
    runs = [costed("first", "pixel", 12.0, 102_400_000), costed("odd", "", 1.0, 1_024_000)]
    rows = table_4(runs)
    names = [row[0].strip() for row in rows]
    assert names[1:3] == ["pixel", "first"]
    assert names[-1] == "odd"
    assert row_of(rows, "pixel")[5:] == ["307.2M", "40.4", "88 V100"]  # the paper's 3.17 s a step on 8 GPUs
    assert row_of(rows, "first")[2:] == ["100,000", "1,024", "2e-05", "102.4M", "98.8", "12 H100"]


def test_the_table_of_the_paper_is_that_of_the_stages() -> None:
    for paper in TABLE_4:
        stage = STAGES[paper.name]
        assert (stage.steps, stage.global_batch, stage.lr) == (paper.steps, paper.batch, paper.lr)
        assert stage.micro_batch * paper.gpus == paper.batch
        assert stage.resolution_px == paper.resolution_px
    assert any("1,656 V100 days / 2.2 = 753 A100 days" in note for note in notes())


def test_energy_is_in_kilowatt_hours_or_says_why_not() -> None:
    run = costed("mine", "", 12.0, 1000)
    assert summary_rows(run.cost) == [("device days", "12 H100"), ("energy", "2 kWh, by NVML")]


def test_columns_stand_below_each_other() -> None:
    lines = as_text(table_4([costed("mine", "align", 3.0, 10)])).splitlines()
    assert len({line.rstrip()[-4:] for line in lines[1:]}) <= 3
    ends = {line.index(" V100") for line in lines if " V100" in line}
    assert len(ends) == 1
    with pytest.raises(ValueError, match="zip"):
        as_text([["a", "b"], ["c", "d", "e"]])
