"""The results of all runs that are done, as Markdown: mean, and least to most over the seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.claims.alignment import MEASURES, TRUE
from benchmarks.claims.arms import ARMS, BASE, CLAIMS, RAW, Claim
from benchmarks.claims.results import Result, differences, pixel_seconds, read_results, spread, steps_to

_LOSS: Final = "loss, "
_LOSSES: Final = ("loss, dense", "loss, raw")
_ALIGNED: Final = tuple(f"{kind}: {measure}" for kind, measures in MEASURES.items() for measure in measures)
_COMPARED: Final = (
    "loss, dense",
    "caption: ground",
    "caption: colour and place",
    "caption: noun",
    "described: colour and place",
    "short: colour",
)


def tables(out: Path) -> str:
    """What every run measured, then each claim's arms against one another."""
    results = read_results(out)
    if not results:
        return "No run is done yet."
    parts = [_costs(results), _alignment(results, out)]
    took = pixel_seconds(out, sorted({one.seed for one in results}))
    if took:
        parts.insert(1, f"Stage 1 took {min(took):,.0f} to {max(took):,.0f} s beside that.")
    parts += [_claim(claim, results) for claim in CLAIMS]
    return "\n\n".join(parts) + "\n"


def _costs(results: Sequence[Result]) -> str:
    rows = []
    for name in _done(results):
        mine = [one for one in results if one.arm == name]
        seconds = sum(one.seconds for one in mine) / len(mine)
        size = f"{mine[0].parameters / 1e6:.2f}M"
        told = [_cell(results, name, loss) for loss in _LOSSES]
        reached = "" if name == RAW else _reached(results, mine)
        rows.append([name, str(len(mine)), f"{mine[0].steps:,}", size, f"{seconds:,.0f} s", *told, reached])
    at = f"at {BASE.name}'s last loss after"
    return _markdown(["arm", "seeds", "steps", "parameters", "training", *_LOSSES, at], rows)


def _reached(results: Sequence[Result], mine: Sequence[Result]) -> str:
    """The steps after which an arm's held-out loss is what the base arm of the same seed ends with."""
    last = {one.seed: one.curve[-1][1] for one in results if one.arm == BASE.name}
    steps = [steps_to(one.curve, last[one.seed]) for one in mine if one.seed in last]
    there = [step for step in steps if step is not None]
    never = f", never in {len(steps) - len(there)} of {len(steps)}" if len(there) < len(steps) else ""
    return f"{min(there):,.0f} to {max(there):,.0f} steps{never}" if there else "never"


def _alignment(results: Sequence[Result], out: Path) -> str:
    rows = [[name, *(_cell(results, name, measure) for measure in _ALIGNED)] for name in _done(results)]
    chance = [measure.replace(":", ", by chance:") for measure in _ALIGNED]
    rows.append([f"{BASE.name}, by chance", *(_cell(results, BASE.name, measure) for measure in chance)])
    if (out / TRUE).exists():
        told = json.loads((out / TRUE).read_text())
        shares = [told[kind][measure] for kind, measures in MEASURES.items() for measure in measures]
        rows.append(["true pictures", *(f"{share:.0%}" for share in shares)])
    return _markdown(["arm", *_ALIGNED], rows)


def _claim(claim: Claim, results: Sequence[Result]) -> str:
    rows = [
        [f"{arm} less {base}", *(_difference(differences(results, arm, base, name), name) for name in _COMPARED)]
        for arm, base in claim.pairs
    ]
    return f"({claim.name}) {claim.claim}\n\n" + _markdown(["seed by seed", *_COMPARED], rows)


def _done(results: Sequence[Result]) -> list[str]:
    there = {one.arm for one in results}
    return [arm.name for arm in ARMS if arm.name in there]


def _cell(results: Sequence[Result], arm: str, name: str) -> str:
    found = spread(results, arm, name)
    return "" if found is None else found.told(".3f" if name.startswith(_LOSS) else ".0%")


def _difference(found: Sequence[float], name: str) -> str:
    """The mean of the differences, and in how many seeds it is above zero."""
    if not found:
        return ""
    mean = sum(found) / len(found)
    told = f"{mean:+.3f}" if name.startswith(_LOSS) else f"{100 * mean:+.0f} points"
    return f"{told}, up in {sum(value > 0 for value in found)} of {len(found)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
