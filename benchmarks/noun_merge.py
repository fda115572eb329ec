"""Merging the noun counts of a hundred million captions: `python -m benchmarks.noun_merge`

Makes partial counts as the noun stage writes them, one for each shard of 10,000 captions with 29 nouns each, drawn from
a Zipf distribution over 3 million nouns (exponent 1.07; real captions have about a tenth of its distinct nouns a shard,
so this is the hard case). Merges them with `curation.nouns.merging`, gathers the statistics in the same pass, and
checks every noun against counts added up directly while the partials were drawn. Each merge runs in a process of its
own, whose peak memory is printed; a tenth of the partials is merged first, so that growth would show. `--distinct`
draws only so many and links the others to them: a hundred million captions without an hour of drawing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.nouns.counting import NOUN_KEYS, CountingRules
from curation.nouns.curves import growth_curve, rank_frequency
from curation.nouns.merging import Run, merge_runs, read_run
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import noun_statistics
from curation.nouns.summary import summarise
from curation.nouns.tagger import Normalisation, TaggerInfo
from schemas.tables import NOUN_TOTALS, NOUNS

_NOUNS: Final = 3_000_000
_EXPONENT: Final = 1.07
_CAPTIONS: Final = 10_000
_NOUNS_A_CAPTION: Final = 29
_GOAL: Final = 100_000_000
_RULES: Final = CountingRules(TaggerInfo("synthetic", "1", "0" * 16, ""), Normalisation.LOWER)


def main() -> None:
    """Make the partials, merge a tenth of them and all of them, and print what that took."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--partials", type=int, default=2000)
    command.add_argument(
        "--distinct", type=int, metavar="N", help="of the partials, drawn; must divide a tenth of them"
    )
    command.add_argument("--quick", action="store_true", help="200 partials")
    command.add_argument("--merge", type=Path, help=argparse.SUPPRESS)  # what the measured process is told
    options = command.parse_args()
    if options.merge:
        print(json.dumps(_merge(options.merge, options.partials)))
        return
    partials = 200 if options.quick else options.partials
    distinct = options.distinct or partials
    if distinct < partials and partials // 10 % distinct:
        raise SystemExit(f"--distinct {distinct} does not divide a tenth of {partials} partials")
    print(f"pyarrow {pa.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}, one thread")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows, size = _draw(Path(folder), partials, distinct)
        took = time.perf_counter() - started
        print(
            f"{partials:,} partials, {distinct:,} of them drawn, in {took:.0f} s: {rows:,} rows, {size / 1e6:,.0f} MB"
        )
        for part in (partials // 10, partials):
            here = [sys.executable, "-m", "benchmarks.noun_merge", "--partials", str(part), "--merge", folder]
            _tell(json.loads(subprocess.run(here, check=True, stdout=subprocess.PIPE).stdout), part)


def _draw(folder: Path, partials: int, distinct: int) -> tuple[int, int]:
    """Write the partials, and the direct counts of a tenth of them and of all; (rows, bytes) of the partials.

    Where fewer are `distinct`, each comes equally often.
    """
    draw = np.random.default_rng(0)
    names = pa.array([f"n{rank:07d}" for rank in range(_NOUNS)])
    direct = np.zeros(_NOUNS, np.int64)
    scale = _NOUNS ** (1 - _EXPONENT) - 1
    rows = size = 0
    for number in range(distinct):
        # The inverse of the distribution function of a density that falls as x ** -exponent from 1 to the last rank.
        uniform = draw.random(_CAPTIONS * _NOUNS_A_CAPTION)
        ranks = ((scale * uniform + 1) ** (1 / (1 - _EXPONENT))).astype(np.int64) - 1
        found, tf = np.unique(ranks, return_counts=True)
        direct[found] += tf
        zeros = np.zeros_like(tf)
        df = np.minimum(tf, _CAPTIONS)
        columns = [pa.array(["caption"] * len(found)), names.take(pa.array(found)), tf, zeros, df, zeros, df]
        path = folder / f"{number:06d}.parquet"
        table = pa.Table.from_arrays([pa.array(c) for c in columns], schema=NOUNS.arrow)
        pq.write_table(table, path, compression="zstd", compression_level=3)
        rows, size = rows + len(found), size + path.stat().st_size
        if number + 1 in (partials // 10, partials):
            np.save(folder / f"direct-{number + 1}.npy", direct)
    if distinct == partials:
        return rows, size
    for number in range(distinct, partials):
        (folder / f"{number:06d}.parquet").hardlink_to(folder / f"{number % distinct:06d}.parquet")
    for part in (partials // 10, partials):
        np.save(folder / f"direct-{part}.npy", direct * (part // distinct))
    return rows * (partials // distinct), size * (partials // distinct)


def _merge(folder: Path, partials: int) -> dict[str, Any]:
    """Merge the first partials, gather the statistics, and compare with the direct counts."""
    pa.set_cpu_count(1)
    direct = np.load(folder / f"direct-{partials}.npy", mmap_mode="r")
    before = _peak_mb()
    started = time.perf_counter()
    captions = partials * _CAPTIONS
    totals = pa.Table.from_arrays(
        [pa.array([v]) for v in ("caption", captions, 0, 0, captions * _NOUNS_A_CAPTION, 0)], schema=NOUN_TOTALS.arrow
    )
    wrong = 0

    def checked(merged: Run) -> Run:
        nonlocal wrong
        for table in merged:
            ranks = np.array([int(noun[1:]) for noun in table["noun"].to_pylist()])
            wrong += int((table["tf_noun"].to_numpy() != direct[ranks]).sum())
            yield table

    opens = [partial(read_run, str(folder / f"{number:06d}.parquet")) for number in range(partials)]
    with tempfile.TemporaryDirectory() as scratch:
        merged = merge_runs(opens, NOUN_KEYS, NOUNS.arrow, Path(scratch))
        summary = summarise(_RULES, totals, checked(merged))
    took = time.perf_counter() - started
    started = time.perf_counter()
    whole = noun_statistics(summary, "caption", Counted.BOTH)
    curve = growth_curve(summary, "caption")
    slope = rank_frequency(summary, "caption").slope
    return {
        "captions": captions,
        "seconds": took,
        "statistics_seconds": time.perf_counter() - started,
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "wrong": wrong + abs(int((direct > 0).sum()) - whole.distinct),
        "DN": whole.distinct,
        "VN": whole.valid,
        "unseen": whole.unseen,
        "slope": slope,
        "points": len(curve),
    }


def _peak_mb() -> float:
    """The most that was resident in this process, in MB (of getrusage, some belongs to the parent)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _tell(found: dict[str, Any], partials: int) -> None:
    print(
        f"{partials:,} partials ({found['captions']:,} captions) merged and summed up in {found['seconds']:.1f} s, "
        f"peak {found['peak_mb']:.0f} MB resident ({found['before_mb']:.0f} MB before the first was read); "
        f"{found['points']} points of growth in {found['statistics_seconds']:.2f} s\n"
        f"  DN {found['DN']:,}, VN {found['VN']:,}, unseen {found['unseen']:.2%}, slope {found['slope']:.3f}; "
        f"nouns whose count differs from the direct one: {found['wrong']}\n"
        f"  by arithmetic, {_GOAL:,} captions: {_GOAL / found['captions'] * found['seconds'] / 60:.0f} min"
    )


if __name__ == "__main__":
    main()
