"""The results of all runs that are done, as Markdown: mean, and least to most over the seeds."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims.arms import ARMS, CLAIMS, Claim
from benchmarks.claims.results import Result, differences, pixel_seconds, read_results, spread

_LOSSES = "loss, "


def tables(out: Path) -> str:
    """What every run measured, then each claim's arms against its first."""
    results = read_results(out)
    if not results:
        return "No run is done yet."
    names = list(dict.fromkeys(name for one in results for name in one.values))
    parts = [_whole(results, names)]
    took = pixel_seconds(out, sorted({one.seed for one in results}))
    if took:
        parts.append(f"Stage 1 took {min(took):,.0f} to {max(took):,.0f} s beside that.")
    parts += [_claim(claim, results, names) for claim in CLAIMS]
    return "\n\n".join(parts) + "\n"


def _whole(results: Sequence[Result], names: Sequence[str]) -> str:
    rows = []
    for arm in ARMS:
        mine = [one for one in results if one.arm == arm.name]
        if mine:
            told = [_cell(results, arm.name, name) for name in names]
            cost = sum(one.seconds for one in mine) / len(mine)
            size, seconds = f"{mine[0].parameters / 1e6:.2f}M", f"{cost:,.0f} s"
            rows.append([arm.name, str(len(mine)), f"{mine[0].steps:,}", size, seconds, *told])
    return _markdown(["arm", "seeds", "steps", "parameters", "training", *names], rows)


def _claim(claim: Claim, results: Sequence[Result], names: Sequence[str]) -> str:
    rows = []
    for arm, base in claim.pairs:
        told = [_difference(differences(results, arm, base, name), name) for name in names]
        rows.append([f"{arm} less {base}", *told])
    return f"({claim.name}) {claim.claim}\n\n" + _markdown(["seed by seed", *names], rows)


def _cell(results: Sequence[Result], arm: str, name: str) -> str:
    found = spread(results, arm, name)
    return "" if found is None else found.told(".3f" if name.startswith(_LOSSES) else ".0%")


def _difference(found: Sequence[float], name: str) -> str:
    """The mean of the differences, and how many of them are above zero."""
    if not found:
        return ""
    mean = sum(found) / len(found)
    told = f"{mean:+.3f}" if name.startswith(_LOSSES) else f"{100 * mean:+.0f} points"
    return f"{told}, up in {sum(value > 0 for value in found)} of {len(found)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
