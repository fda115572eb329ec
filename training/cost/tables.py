"""A run's cost beside what was published: the paper's tables 2 (peers) and 4 (stages), each with the run's own row."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import UserError
from schemas.record import from_json
from training.config import Recipe
from training.cost.ledger import DAY, KILOWATT_HOUR, Cost, CostRecord, read_cost, total
from training.cost.published import REVISION, TABLE_2, TABLE_4, V100_DAYS_AN_A100_DAY
from training.run_directory import CONFIG
from training.weights.files import EMA_WEIGHTS, parameters_in

MILLION: Final = 1e6
UNKNOWN: Final = "–"


@dataclass(frozen=True, slots=True)
class CostedRun:
    """One run directory."""

    name: str
    stage: str
    global_batch: int  # 0 where batches are limited by tokens
    lr: float
    parameters: int  # 0 where the run has exported no weights
    record: CostRecord

    @property
    def cost(self) -> Cost:
        """Of this run alone."""
        return total([self.record])


def open_costed(run: Path) -> CostedRun:
    """The run in directory `run`. Raises `UserError` if there is none, or it keeps no record of its cost."""
    try:
        recipe = from_json(Recipe, json.dumps(json.loads((run / CONFIG).read_text())["recipe"]), str(run / CONFIG))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run}: no training run there (no readable {CONFIG}). Check the path.") from None
    record = read_cost(run)
    if not record.sessions:
        raise UserError(f"{run}: has recorded no cost yet. Wait for its first save; runs of older versions have none.")
    weights = run / EMA_WEIGHTS
    parameters = parameters_in(weights) if weights.is_file() else 0
    batch, lr = recipe.policy.global_batch, recipe.optimiser.lr
    return CostedRun(run.name, recipe.stage, batch, lr, parameters, record)


def summary_rows(cost: Cost) -> list[tuple[str, str]]:
    """What it cost, as rows for people."""
    days = " + ".join(f"{days:.4g} {name}" for name, days in cost.device_days.items()) or UNKNOWN
    told = "; ".join(cost.energy)
    share = f" ({cost.joules_share:.0%} of the time)" if cost.joules is not None and cost.joules_share < 0.995 else ""
    energy = f"{cost.joules / KILOWATT_HOUR:.4g} kWh, by {told}{share}" if cost.joules is not None else told
    return [("device days", days), ("energy", energy)]


def table_2(cost: Cost, parameters: int, fid: str = "") -> list[list[str]]:
    """Rows of Table 2, its head first, the run's own last."""
    rows = [["", "params", "training set", "samples seen", "FID-30K", "device days"]]
    for peer in TABLE_2:
        days = f"{peer.days:,.0f} A100" if peer.days is not None else UNKNOWN
        name, fid_of_peer = peer.name + (" *" if peer.note else ""), f"{peer.fid:.2f}" if peer.fid else UNKNOWN
        rows.append([name, f"{peer.parameters_b:g}B", f"{peer.images_m:,.0f}M", UNKNOWN, fid_of_peer, days])
    own = " + ".join(f"{days:,.4g} {name}" for name, days in cost.device_days.items())
    rows.append(["this run", _billions(parameters), UNKNOWN, _millions(cost.images), fid or UNKNOWN, own])
    return rows


def table_4(runs: Sequence[CostedRun]) -> list[list[str]]:
    """Rows of Table 4, its head first; behind each stage of the paper the run's own, runs of no stage last."""
    rows = [["stage", "px", "steps", "batch", "lr", "samples seen", "images/s a device", "device days"]]
    named = {stage.name for stage in TABLE_4}
    for stage in TABLE_4:
        seen, speed = stage.steps * stage.batch, stage.steps * stage.batch / (stage.days * DAY)
        rows.append(
            [
                stage.name,
                f"{stage.resolution_px}",
                f"{stage.steps:,}",
                f"{stage.batch:,}",
                f"{stage.lr:g}",
                _millions(seen),
                f"{speed:.3g}",
                f"{stage.days:,.0f} V100",
            ]
        )
        rows += [_own(run) for run in runs if run.stage == stage.name]
    return rows + [_own(run) for run in runs if run.stage not in named]


def notes() -> Iterator[str]:
    """What a reader of the tables must know."""
    for peer in TABLE_2:
        if peer.note:
            yield f"* {peer.name}: {peer.note}"
    days = sum(stage.days for stage in TABLE_4)
    yield (
        f"figures: {REVISION}. {days:,.0f} V100 days / {V100_DAYS_AN_A100_DAY} = "
        f"{days / V100_DAYS_AN_A100_DAY:,.0f} A100 days, without features and captions; the first revision says 675"
    )


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _own(run: CostedRun) -> list[str]:
    cost, batch = run.cost, run.global_batch
    done = sum(session.images - session.first_images for session in run.record.sessions)
    days = " + ".join(f"{days:,.4g} {name}" for name, days in cost.device_days.items())
    return [
        f"  {run.name}",
        "",
        f"{cost.images // batch:,}" if batch else UNKNOWN,
        f"{batch:,}" if batch else "tokens",
        f"{run.lr:g}",
        _millions(cost.images),
        f"{done / (cost.days * DAY):.3g}" if cost.days else UNKNOWN,
        days,
    ]


def _millions(images: int) -> str:
    return f"{images / MILLION:,.4g}M"


def _billions(parameters: int) -> str:
    return f"{parameters / 1e9:.3g}B" if parameters else UNKNOWN
