"""Does a long captioning job hold its memory? `python -m benchmarks.job_memory [--rows 10000] [--workers 1]`

Runs the ordinary command on generated pictures with the small LLaVA, on Ray, so that driver and worker are separate
processes; samples the resident memory of both; and prints how it grew between the first and the last third of the job,
when all that is loaded once has been loaded. The median of a third is compared, so that single peaks do not count.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil

_EVERY = 0.5


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--rows", type=int, default=10_000)
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--unit-rows", type=int, default=250)
    command.add_argument("--max-new-tokens", type=int, default=16)
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, seconds, rows = _run(Path(folder), options)
    print(f"{rows:,} rows in {seconds:,.0f} s ({rows / seconds:,.1f} rows/s), {options.workers} worker(s) on Ray")
    print(f"python {platform.python_version()}, torch {version('torch')}, ray {version('ray')}, {platform.processor()}")
    print(f"{'process':10} {'first third':>12} {'last third':>12} {'ratio':>7}   (median resident MiB)")
    for name, values in samples.items():
        third = max(1, len(values) // 3)
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        print(f"{name:10} {first:12,.1f} {last:12,.1f} {last / first:7.3f}")


def _run(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[float]], float, int]:
    """Resident MiB of driver and worker, sampled while rows are being captioned; seconds; rows."""
    shards = -(-options.rows // 1000)
    _python("pipelines.demo_shards", "--out", folder / "shards", "--shards", shards, "--rows", options.rows // shards)
    _python("pipelines.tiny_models", "--out", folder / "models")
    job = [sys.executable, "-m", "pipelines.caption", "--shards", str(folder / "shards" / "*.tar")]
    job += ["--source", "webdataset", "--model", str(folder / "models" / "llava"), "--out", str(folder / "captions")]
    job += ["--executor", "ray", "--workers", str(options.workers), "--unit-rows", str(options.unit_rows)]
    job += ["--max-new-tokens", str(options.max_new_tokens), "--canary", "0"]  # the weights are random
    job += ["--summary-json", str(folder / "summary.json")]
    samples: dict[str, list[float]] = {"driver": [], "worker": []}
    start = time.perf_counter()
    ledger = folder / "captions" / "ledger"
    with subprocess.Popen(job) as process:
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            if ledger.is_dir() and any(ledger.iterdir()):  # the first unit is done: everything is loaded
                _sample(driver, samples)
            time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"the job ended with exit code {process.returncode}")
    summary = json.loads((folder / "summary.json").read_text())
    return samples, time.perf_counter() - start, summary["rows_in"]


def _sample(driver: psutil.Process, samples: dict[str, list[float]]) -> None:
    try:
        samples["driver"].append(driver.memory_info().rss / 2**20)
        workers = [p for p in driver.children(recursive=True) if any("UnitActor" in part for part in p.cmdline())]
        if workers:
            samples["worker"].append(sum(p.memory_info().rss for p in workers) / 2**20)
    except psutil.NoSuchProcess:
        return  # it ended between two looks


def _python(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
