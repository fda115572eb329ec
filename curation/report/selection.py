"""What a selection says of itself: the funnel of its recipe, and the thresholds whose edges can be shown."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from curation.report.edges import Threshold
from curation.report.thresholds import LABELS
from schemas.errors import DatasetError
from schemas.location import file_system
from schemas.selection import ABOUT_KEY, SELECTION

_RANGE: Final = frozenset({"column", "min", "max", "allow_null"})
_VALUES: Final = frozenset({"column", "values", "keep", "allow_null"})


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One filter: what it takes by itself (`total`), of what was left before it (`marginal`), and what no other takes
    (`unique`); `left` is what stands after it."""

    name: str
    total: int
    marginal: int
    unique: int
    left: int


@dataclass(frozen=True, slots=True)
class SelectionNumbers:
    """The account of a selection. `thresholds` are its filters that have an edge to show; `edgeless` names the others,
    with why."""

    url: str
    recipe: str
    description: str
    samples: int
    selected: int
    funnel: tuple[FunnelStep, ...]
    thresholds: tuple[Threshold, ...]
    edgeless: tuple[str, ...]


def read_selection_numbers(url: str, knows: Callable[[str], bool]) -> SelectionNumbers:
    """The account in a selection file, or in the JSON that `pipelines.select --summary-json` wrote. `knows` says
    whether a measure is known here.

    Raises `DatasetError` or `SchemaError` for a file that is neither, or has no account.
    """
    about = _about(url)
    try:
        recipe = about["recipe"]
        thresholds, edgeless = [], []
        for one in recipe["filters"]:
            threshold = _threshold(one["name"], one["test"])
            if threshold is None:
                edgeless.append(f"{one['name']}: looks at more than one value, so it has no edge")
            elif not knows(threshold.measure):
                edgeless.append(f"{one['name']}: {threshold.measure} is in none of the datasets given here")
            else:
                thresholds.append(threshold)
        return SelectionNumbers(
            url=url,
            recipe=str(recipe["name"]),
            description=str(recipe["description"]),
            samples=int(about["samples"]),
            selected=int(about["selected"]),
            funnel=tuple(
                FunnelStep(str(row["name"]), *(int(row[name]) for name in ("total", "marginal", "unique", "left")))
                for row in about["funnel"]
            ),
            thresholds=tuple(thresholds),
            edgeless=tuple(edgeless),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{url}: its account of how it was made cannot be read ({error!r}). Write it anew with pipelines.select."
        ) from None


def _about(url: str) -> Mapping[str, Any]:
    """The account alone: the samples of a selection may be many."""
    fs, path = file_system(url)
    if not fs.isfile(path):
        raise DatasetError(f"{url}: no such file. Give the selection that pipelines.select wrote.")
    with fs.open(path, "rb") as file:
        try:
            if path.lower().endswith(".json"):
                about: Any = json.loads(file.read())
            else:
                schema = pq.read_schema(file)
                SELECTION.check(schema, url)
                about = json.loads((schema.metadata or {}).get(ABOUT_KEY, b"{}"))
        except (pa.ArrowInvalid, ValueError) as error:
            raise DatasetError(
                f"{url}: neither Parquet nor JSON ({error}). Write it anew with pipelines.select."
            ) from None
    if not isinstance(about, Mapping) or not about:
        raise DatasetError(f"{url}: says nothing of how it was made. Write it anew with pipelines.select.")
    return about


def _threshold(name: str, test: Mapping[str, Any]) -> Threshold | None:
    """The edge of a filter, by the keys of what it tests; None for one that compares no value with a limit."""
    measure = str(test["column"]).rpartition(".")[2]
    label, why = LABELS.get(measure, measure), f"the selection's filter {name}"
    if test.keys() == _RANGE:
        return Threshold(measure, label, why, test["min"], test["max"])
    if test.keys() == _VALUES and all(isinstance(value, str) for value in test["values"]):
        return Threshold(measure, label, why, words=tuple(test["values"]), keep=bool(test["keep"]))
    return None
