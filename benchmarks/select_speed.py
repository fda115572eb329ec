"""How long does a recipe take over a million samples? `python -m benchmarks.select_speed [--rows 1000000] [--rounds 2]`

Writes datasets of made-up rows (captions, measures with hashes of which a fifth are near-duplicates, nouns per image by
Zipf's law, and a Parquet file of scores), then runs `pipelines.select --what-if` as anybody would, each in a process of
its own, and prints wall time and peak memory. The row filters also run, in turns, as a plain loop over rows that joins
by a dictionary: what one would write by hand, on the same rows already in memory.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.select.recipe import Recipe, range_filter
from curation.select.run import select
from curation.select.tables import open_tables
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, PLAN_FILE, DatasetInfo, PlannedUnit, PlanRecord, RunFacts, table_path
from schemas.reading import open_dataset
from schemas.record import to_json
from schemas.table import TableSchema
from schemas.tables import CAPTIONS, MEASURES, NOUNS_PER_IMAGE

UNIT_ROWS, NOUNS_A_CAPTION, VOCABULARY = 10_000, 20, 100_000

RANGES = """
[[filter]]
column = "status"
in = ["ok", "trimmed"]
[[filter]]
column = "n_t5_tokens"
max = 120
[[filter]]
column = "nouns.nouns"
min = 3
[[filter]]
column = "measures.min_side"
min = 256
[[filter]]
column = "measures.aspect"
max = 3
[[filter]]
column = "aesthetic"
min = 4.5
[[filter]]
column = "scores.clip"
min = 0.2
"""
DUPLICATES = """
[[filter]]
column = "phash"
within = 4
prefer = "measures.pixels"
"""
CAP = """
[[filter]]
column = "distinct"
cap = 100
skip_below = 3
"""
RECIPES = {
    "7 row filters": RANGES,
    "duplicates alone": DUPLICATES,
    "a noun cap alone": CAP,
    "all of them": RANGES + DUPLICATES + CAP,
}


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--rows", type=int, default=1_000_000)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.write:
        write_all(options.write, options.rows)
        return
    print(f"python {platform.python_version()}, pyarrow {version('pyarrow')}, numpy {np.__version__}, one process")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: the memory of a parent counts as its children's.
        writing = [sys.executable, "-m", "benchmarks.select_speed", "--rows", str(options.rows), "--write", name]
        subprocess.run(writing, check=True)
        for recipe, text in RECIPES.items():
            (folder / "recipe.toml").write_text(text)
            runs = [_what_if(folder) for _ in range(options.rounds)]
            wall, cpu = (", ".join(f"{run[place]:.1f}" for run in runs) for place in (0, 1))
            peak = max(run[2] for run in runs)
            print(f"--what-if, {options.rows:,} rows, {recipe}: {wall} s ({cpu} s of CPU), peak {peak:,.0f} MiB")
        for _ in range(options.rounds):
            ours, plain = _ours(folder), _plain(folder)
            print(f"4 thresholds over 2 tables: ours {ours:.2f} s, plain loop {plain:.2f} s, ratio {plain / ours:.1f}")


def _what_if(folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MiB of the command."""
    tables = [str(folder / name) for name in ("captions", "measures", "nouns", "scores.parquet")]
    job = [sys.executable, "-m", "pipelines.select", "--what-if", "--recipe", str(folder / "recipe.toml"), "--table"]
    start = time.perf_counter()
    child = subprocess.Popen([*job, *tables], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"pipelines.select ended with exit code {child.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _ours(folder: Path) -> float:
    start = time.perf_counter()
    filters = (range_filter("n_t5_tokens", None, 120), range_filter("n_words", 10))
    filters += (range_filter("luma_std", 20), range_filter("sharpness", 50))
    select(open_tables([str(folder / "captions"), str(folder / "measures")], "caption"), Recipe(filters=filters))
    return time.perf_counter() - start


def _plain(folder: Path) -> float:
    """The same by rows: read, join by a dictionary, count what each threshold takes in order and alone."""
    start = time.perf_counter()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, schema, columns in (
        ("captions", CAPTIONS, ["n_t5_tokens", "n_words"]),
        ("measures", MEASURES, ["luma_std", "sharpness"]),
    ):
        for table in open_dataset(str(folder / name), name).tables(schema, ["shard", "key", *columns]):
            for row in table.to_pylist():
                rows.setdefault((row["shard"], row["key"]), {}).update(row)
    marginal, unique, chosen = [0] * 4, [0] * 4, []
    for pair, row in sorted(rows.items()):
        gone = [row["n_t5_tokens"] > 120, row["n_words"] < 10, row["luma_std"] < 20, row["sharpness"] < 50]
        if True not in gone:
            chosen.append(pair)
            continue
        marginal[gone.index(True)] += 1
        if gone.count(True) == 1:
            unique[gone.index(True)] += 1
    return time.perf_counter() - start


def write_all(folder: Path, rows: int) -> None:
    """The datasets and the file."""
    noise = np.random.default_rng(0)
    copies = rows // 5
    hashes = noise.integers(0, 2**64, rows, dtype=np.uint64)
    flips = np.uint64(1) << noise.integers(0, 64, copies).astype(np.uint64)
    hashes[noise.permutation(rows)[:copies]] = hashes[noise.integers(0, rows, copies)] ^ flips
    units = [
        PlannedUnit(f"{i:06d}", f"{i:06d}", 0, min(UNIT_ROWS, rows - i * UNIT_ROWS))
        for i in range(-(-rows // UNIT_ROWS))
    ]
    names = [_names(unit) for unit in units]
    _write(folder / "captions", CAPTIONS, units, [_captions(noise, *name) for name in names])
    starts = range(0, rows, UNIT_ROWS)
    _write(
        folder / "measures",
        MEASURES,
        units,
        [_measures(noise, hashes[i:], *name) for i, name in zip(starts, names, strict=True)],
    )
    _write(folder / "nouns", NOUNS_PER_IMAGE, units, [_nouns(noise, *name) for name in names], "nouns", "per_image/")
    keys = [key for name in names for key in name[1]]
    pq.write_table(pa.table({"key": keys, "clip": noise.uniform(0, 0.5, rows)}), folder / "scores.parquet")


def _names(unit: PlannedUnit) -> tuple[list[str], list[str]]:
    return [unit.shard] * unit.stop, [f"sa_{unit.shard}_{row:06d}" for row in range(unit.stop)]


def _captions(noise: np.random.Generator, shards: list[str], keys: list[str]) -> dict[str, Any]:
    rows = len(keys)
    texts = dict.fromkeys(("generated", "caption"), ["a red barn by the river, and two horses in a meadow"] * rows)
    words = {"finish_reason": ["stop"] * rows, "prompt_id": ["p"] * rows, "flags": [[]] * rows}
    nulls = dict.fromkeys(("raw_caption", "error", "mean_logprob", "repeated_4grams", "compression"), [None] * rows)
    ones = dict.fromkeys(("n_prompt_tokens", "n_tokens", "rules_version", "seed"), np.ones(rows, int))
    drawn = {
        "status": noise.choice(["ok", "trimmed", "truncated", "repetition"], rows, p=[0.8, 0.1, 0.05, 0.05]),
        "n_t5_tokens": noise.integers(20, 140, rows),
        "n_words": noise.integers(5, 120, rows),
    }
    sizes = {"width": noise.integers(200, 2000, rows), "height": noise.integers(200, 2000, rows)}
    return {"key": keys, "shard": shards, **texts, **words, **nulls, **ones, **drawn, **sizes}


def _measures(noise: np.random.Generator, hashes: Any, shards: list[str], keys: list[str]) -> dict[str, Any]:
    rows = len(keys)
    drawn = {name: noise.uniform(0, 255, rows).astype(np.float32) for name in ("luma_mean", "luma_std", "sharpness")}
    scores = [[("aesthetic", a), ("punsafe", u)] for a, u in noise.uniform(0, 1, (rows, 2)) * (10, 1)]
    sizes = {"width": noise.integers(200, 2000, rows), "height": noise.integers(200, 2000, rows)}
    return {"key": keys, "shard": shards, "phash": hashes[:rows], "extra": scores, **drawn, **sizes}


def _nouns(noise: np.random.Generator, shards: list[str], keys: list[str]) -> dict[str, Any]:
    rows = len(keys)
    drawn = np.minimum(noise.zipf(1.2, (rows, NOUNS_A_CAPTION)), VOCABULARY)
    counts = {"nouns": drawn.shape[1] + np.zeros(rows, int), "propns": np.zeros(rows, int), "tokens": np.full(rows, 60)}
    distinct = [[f"noun{word}" for word in sorted(set(row))] for row in drawn.tolist()]
    return {"key": keys, "shard": shards, "column": ["caption"] * rows, "distinct": distinct, **counts}


def _write(
    root: Path,
    schema: TableSchema,
    units: list[PlannedUnit],
    tables: list[dict[str, Any]],
    kind: str = "",
    folder: str = "",
) -> None:
    """A dataset as the stages write it, of one table a unit."""
    target, kind = Target(str(root)), kind or schema.kind
    info = DatasetInfo(kind, 1, kind, {"columns": ["caption"]}, "f" * 32, "made up", "benchmark", UNIT_ROWS)
    target.write_text(DATASET_FILE, to_json(info))
    target.write_text(PLAN_FILE, to_json(PlanRecord(tuple(unit.shard for unit in units), tuple(units))))
    for unit, columns in zip(units, tables, strict=True):
        arrays = {field.name: pa.array(columns[field.name], field.type) for field in schema.arrow}
        with UnitWriter(target, unit, kind) as writer:
            writer.table(folder + table_path(unit.name), schema).write_table(pa.table(arrays))
            for key in columns["key"]:
                writer.keep(key)
            writer.commit(info.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))


if __name__ == "__main__":
    main()
