"""A training run as its directory tells it: `metrics.jsonl`, `summary.json`. Read by the files alone, tolerantly, so
that a run in progress, or one of another version, can be looked at too."""

import json
import math
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import DatasetError
from schemas.location import file_system

_METRICS: Final = "metrics.jsonl"
_SUMMARY: Final = "summary.json"
_COST: Final = "cost.json"
_DAY: Final = 86_400.0
_KILOWATT_HOUR: Final = 3.6e6  # joules
_POINTS: Final = 512

Points = tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Curve:
    """(x, y) pairs in order, thinned as they come: at most 512 points, each the mean of equally many pairs."""

    _points: list[tuple[float, float]] = field(default_factory=list)
    _stride: int = 1
    _pending: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """Append one pair."""
        self._pending.append((x, y))
        if len(self._pending) < self._stride:
            return
        self._points.append(_mean(self._pending))
        self._pending.clear()
        if len(self._points) == _POINTS:
            self._points = [_mean(self._points[i : i + 2]) for i in range(0, _POINTS, 2)]
            self._stride *= 2

    def points(self) -> Points:
        """The curve so far, what is pending included."""
        return (*self._points, *([_mean(self._pending)] if self._pending else []))


@dataclass(frozen=True, slots=True)
class TrainingNumbers:
    """A run's curves over steps, and its last word. `records` is log lines read, `unreadable` those that were not.

    `final` is `summary.json` as it stands, or what the log lines alone tell (`finished` says which).
    """

    url: str
    records: int
    unreadable: int
    loss: Points
    validation_loss: Points
    images_per_second: Points
    finished: bool
    final: dict[str, float | str | None]


@dataclass(slots=True)
class _Log:
    records: int = 0
    unreadable: int = 0
    images: float = 0.0
    loss: Curve = field(default_factory=Curve)
    validation_loss: Curve = field(default_factory=Curve)
    speed: Curve = field(default_factory=Curve)
    last: dict[str, float | str | None] = field(default_factory=dict)

    def add(self, line: str) -> None:
        """Take in one line of `metrics.jsonl`."""
        record = _json_object(line)
        step = _number(record, "step")
        if step is None:
            self.unreadable += 1
            return
        self.records += 1
        for curve, names in ((self.loss, ("loss", "train_loss")), (self.validation_loss, ("val_loss",))):
            value = next((v for name in names if (v := _number(record, name)) is not None), None)
            if value is not None:
                curve.add(step, value)
        images, seconds = _number(record, "images"), _number(record, "seconds")
        speed = _number(record, "images_per_second")
        if speed is None and images is not None and seconds:
            speed = (images - self.images) / seconds
        if speed is not None and speed >= 0:
            self.speed.add(step, speed)
        self.images = images if images is not None else self.images
        self.last = _plain(record)


def read_training(url: str) -> TrainingNumbers:
    """The run in directory `url`. Raises `DatasetError` if there is no `metrics.jsonl`."""
    fs, root = file_system(url)
    path = posixpath.join(root, _METRICS)
    if not fs.exists(path):
        raise DatasetError(f"{url}: no {_METRICS} there, so no training run. Check the path of --run.")
    log = _Log()
    with fs.open(path, "r", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                log.add(line)
    summary_path = posixpath.join(root, _SUMMARY)
    summary = _json_object(fs.cat_file(summary_path).decode("utf-8", "replace")) if fs.exists(summary_path) else {}
    return TrainingNumbers(
        url=url,
        records=log.records,
        unreadable=log.unreadable,
        loss=log.loss.points(),
        validation_loss=log.validation_loss.points(),
        images_per_second=log.speed.points(),
        finished=bool(summary),
        final=(_plain(summary) if summary else log.last) | _cost(fs, posixpath.join(root, _COST)),
    )


def smoothed(points: Points, share: float = 0.05) -> Points:
    """The mean over a window of `share` of the points, centred on each, and shorter towards the ends."""
    half = max(1, round(share * len(points) / 2))
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        out.append((x, _mean(list(points[i - reach : i + reach + 1]))[1]))
    return tuple(out)


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return pairs[-1][0], sum(y for _, y in pairs) / len(pairs)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _cost(fs: Any, path: str) -> dict[str, float | str | None]:
    """Device days by name and energy, summed over the run's starts; nothing where the run keeps no such record."""
    record = _json_object(fs.cat_file(path).decode("utf-8", "replace")) if fs.exists(path) else {}
    days: dict[str, float] = {}
    joules: list[float | None] = []
    for session in (one for one in record.get("sessions") or () if {"devices", "seconds", "joules"} <= one.keys()):
        for name, count in session["devices"].items():
            days[name] = days.get(name, 0.0) + count * session["seconds"] / _DAY
        joules.append(session["joules"])
    if not days:
        return {}
    told = [value for value in joules if value is not None]
    whole = len(told) == len(joules)
    energy = f"{sum(told) / _KILOWATT_HOUR:.4g} kWh" if whole else "not told by the driver"
    return {"device days": " + ".join(f"{value:.4g} {name}" for name, value in days.items()), "energy": energy}


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _plain(record: Mapping[str, Any]) -> dict[str, float | str | None]:
    """The values that fit into a table: finite numbers, words, nulls."""
    return {k: v for k, v in record.items() if v is None or isinstance(v, str) or _number(record, k) is not None}
