"""Histograms, joins, curves, and how numbers are spelt."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.report.formats import duration, number, share, size
from curation.report.histogram import PERCENTILES, Histogram
from curation.report.samples import distinct, join_balance
from curation.report.training_run import Curve, read_training, smoothed
from schemas.errors import DatasetError, UserError

IDS = st.sets(st.integers(0, 40))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_percentiles_and_mean_are_exact(values: list[int]) -> None:
    histogram = Histogram()
    for start in range(0, len(values), 7):
        histogram.add(np.array(values[start : start + 7]))
    found = histogram.distribution()
    assert found is not None
    expected = np.percentile(values, PERCENTILES, method="inverted_cdf")
    assert list(found.percentiles.values()) == expected.tolist()
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.rows, found.least, found.most) == (len(values), min(values), max(values))
    assert sum(found.binned(10, 5)) == pytest.approx(1)


def test_nothing_counted_has_no_distribution() -> None:
    histogram = Histogram()
    histogram.add(np.array([], dtype=np.int32))
    assert histogram.distribution() is None


@given(IDS, IDS)
def test_a_join_counts_what_sets_say(latents: set[int], text: set[int]) -> None:
    def ids(values: set[int]) -> np.ndarray:
        return distinct([np.array(sorted(values), dtype=np.uint64)], "here")

    balance = join_balance(ids(latents), ids(text), "here")
    assert (balance.rows_in, balance.kept) == (len(latents | text), len(latents & text))
    lost = {loss.reason: loss.rows for loss in balance.losses}
    assert lost.get("latents_without_text", 0) == len(latents - text)
    assert lost.get("text_without_latents", 0) == len(text - latents)


def test_a_sample_that_comes_twice_is_refused() -> None:
    with pytest.raises(DatasetError, match="1 samples"):
        distinct([np.array([1, 2], np.uint64), np.array([2], np.uint64)], "here")


@pytest.mark.parametrize("pairs", [0, 1, 511, 512, 5000])
def test_a_curve_keeps_few_points_and_its_mean(pairs: int) -> None:
    curve = Curve()
    for i in range(pairs):
        curve.add(float(i), 2.0)
    points = curve.points()
    assert len(points) <= 513
    assert all(y == 2.0 for _, y in points)
    assert not pairs or points[-1][0] == pairs - 1
    assert len(smoothed(points)) == len(points)


def test_a_log_in_progress_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    records = [{"step": 1, "loss": 2.0, "images_per_second": 5}, {"step": 2, "loss": None}, {"loss": 3.0}, [1]]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "loss": NaN}', '{"st']) + "\n\n")
    run = read_training(str(tmp_path))
    assert (run.records, run.unreadable, run.finished) == (3, 3, False)
    assert run.loss == ((1.0, 2.0),)
    assert run.images_per_second == ((1.0, 5.0),)
    assert run.final == {"step": 3}


def test_speed_follows_from_images_and_seconds(tmp_path: Path) -> None:
    records = [{"step": i, "images": 64 * i, "seconds": 2.0, "loss": 1.0} for i in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read_training(str(tmp_path)).images_per_second == ((1.0, 32.0), (2.0, 32.0))


def test_a_directory_without_metrics_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no metrics\.jsonl there"):
        read_training(str(tmp_path))


def test_a_run_behind_a_url_that_nothing_here_can_open_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^nowhere://run: "):
        read_training("nowhere://run")


def test_numbers_are_spelt_for_people() -> None:
    assert [number(v) for v in (1234567, 12.345, 1.2345, 0.012345, 150.6)] == [
        "1,234,567",
        "12.3",
        "1.23",
        "0.0123",
        "151",
    ]
    assert [share(*pair) for pair in ((1, 4), (1, 1_000_000), (999_999, 1_000_000), (3, 3), (0, 0))] == [
        *("25.0%", "<0.1%", ">99.9%", "100.0%", "–")
    ]
    assert [size(v) for v in (512, 1_967_040, 999_600, 19.67e12)] == ["512 B", "1.97 MB", "1 MB", "19.7 TB"]
    assert [duration(v) for v in (0.05, 12.34, 75, 3720, 200_000)] == [
        "50 ms",
        "12.3 s",
        "1 min 15 s",
        "1 h 02 min",
        "2 d 7 h",
    ]


def test_a_run_tells_what_all_its_starts_cost(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    assert "device days" not in read_training(str(tmp_path)).final
    start = {"devices": {"H100": 8}, "seconds": 43_200.0, "joules": 3.6e6}
    (tmp_path / "cost.json").write_text(json.dumps({"sessions": [start, start, {"of": "another version"}]}))
    told = read_training(str(tmp_path)).final
    assert (told["device days"], told["energy"]) == ("8 H100", "2 kWh")
    (tmp_path / "cost.json").write_text(json.dumps({"sessions": [start, start | {"joules": None}]}))
    assert read_training(str(tmp_path)).final["energy"] == "not told by the driver"
