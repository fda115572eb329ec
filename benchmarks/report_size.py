"""How large a report of a million rows is, how long it takes and what memory: `python -m benchmarks.report_size`

Writes a synthetic captions dataset, and shards of pictures (one tar under many names), into a temporary directory,
makes the report of it in a process of its own, and prints size, seconds and that process's peak resident memory; first
for a tenth of the rows, for the ratio. The captions have what real ones have: long tails, loops, refusals, cut
sentences, and one shard in which all goes wrong.
"""

import argparse
import os
import platform
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.captions.quality import clean, measure
from curation.shards.shard_index import ensure_index
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, DatasetInfo, PlannedUnit, RunFacts, table_path
from schemas.record import to_json
from schemas.status import RejectReason
from schemas.tables import CAPTIONS

_LIMIT_MB: Final = 10.0
_VARIETY: Final = 2000  # distinct captions; each is judged once and then stands on many rows
_FINGERPRINT: Final = "0" * 32
_TEXT: Final = """
    a the of on in with and two small large red green wooden old young bright dark street car dog cat man woman child
    tree house table window sky water grass bowl fruit bench bicycle train bridge boat mountain field road sign light
    shadow colour background foreground left right side near behind standing sitting holding walking looking wearing
"""
_WORDS: Final = tuple(_TEXT.split())


def main() -> None:
    """Write, report, print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--rows", type=int, default=1_000_000)
    command.add_argument("--shard-rows", type=int, default=10_000)
    command.add_argument("--keep", type=Path, metavar="DIR", help="write here and leave everything in place")
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        told = [_measured(root / str(rows), rows, options.shard_rows) for rows in (options.rows // 10, options.rows)]
    print(f"python {platform.python_version()}, pyarrow {version('pyarrow')}, Pillow {version('Pillow')}")
    print(f"{'rows':>10} {'HTML MB':>8} {'JSON MB':>8} {'MD kB':>7} {'seconds':>8} {'rows/s':>8} {'peak MiB':>9}")
    for one in told:
        print(
            f"{one['rows']:10,.0f} {one['html']:8.2f} {one['json']:8.2f} {one['md']:7.1f} {one['seconds']:8.1f} "
            f"{one['rows'] / one['seconds']:8,.0f} {one['peak']:9,.0f}"
        )
    small, large = told
    page, memory = large["html"] / small["html"], large["peak"] / small["peak"]
    print(f"ten times the rows: {page:.2f} times the page, {memory:.2f} times the memory")
    if large["html"] >= _LIMIT_MB:
        raise SystemExit(f"the page has {large['html']:.2f} MB, the limit is {_LIMIT_MB:g}")


def _measured(root: Path, rows: int, shard_rows: int) -> dict[str, float]:
    names = [f"made-{i:05d}" for i in range(rows // shard_rows)]
    keys = [f"{i:09d}" for i in range(shard_rows)]
    write_shards(root / "shards", names, keys)
    write_captions(root / "captions", dict.fromkeys(names, keys))
    for name in names:
        ensure_index(Target(str(root / "captions")), str(root / "shards" / f"{name}.tar"), "tar")
    out = root / "report.html"
    line = [sys.executable, "-m", "pipelines.report", "--captions", str(root / "captions")]
    line += ["--shards", str(root / "shards" / "made-*.tar"), "--source", "webdataset", "--out", str(out)]
    start = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the report ended with exit code {process.returncode}")
    sizes = {kind: out.with_suffix(f".{kind}").stat().st_size for kind in ("html", "json", "md")}
    return {
        "rows": float(rows),
        "html": sizes["html"] / 1e6,
        "json": sizes["json"] / 1e6,
        "md": sizes["md"] / 1e3,
        "seconds": time.perf_counter() - start,
        "peak": usage.ru_maxrss / 1024,
    }


def write_shards(folder: Path, names: Sequence[str], keys: Sequence[str]) -> None:
    """One tar of pictures with `keys`, under all `names`: 64 different pictures of 400 px and more."""
    folder.mkdir(parents=True)
    pictures = [_picture(i) for i in range(64)]
    with tarfile.open(folder / f"{names[0]}.tar", "w") as tar:
        for i, key in enumerate(keys):
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = len(pictures[i % len(pictures)])
            tar.addfile(member, BytesIO(pictures[i % len(pictures)]))
    for name in names[1:]:
        os.link(folder / f"{names[0]}.tar", folder / f"{name}.tar")


def write_captions(
    folder: Path, shards: Mapping[str, Sequence[str]], sizes: Mapping[str, tuple[int, int]] | None = None
) -> None:
    """A captions dataset with the keys of each shard; `sizes` are (height, width) by key where they are known."""
    folder.mkdir(parents=True)
    config = {"model": "made up", "prompt": "Describe this image and its style in a very detailed manner"}
    info = DatasetInfo("captions", CAPTIONS.version, "caption", config, _FINGERPRINT, "webdataset", "made-up", 0)
    (folder / DATASET_FILE).write_text(to_json(info))
    kinds = _kinds(random.Random(0))
    target, names = Target(str(folder)), list(shards)
    for number, (shard, keys) in enumerate(shards.items()):
        chance = random.Random(number)
        bad = len(names) > 4 and number == len(names) // 2
        with UnitWriter(target, PlannedUnit(shard, shard, 0, len(keys)), "caption") as writer:
            sink = writer.table(table_path(shard), CAPTIONS)
            rows = []
            for key in keys:
                if chance.random() < (0.2 if bad else 0.01):
                    writer.reject(key, RejectReason.CORRUPT, "JPEG ends early")
                    continue
                writer.keep(key)
                rows.append(_row(shard, key, chance, kinds, sizes, bad=bad))
            sink.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS.arrow))
            phases = {"decode": 0.02 * len(keys), "model": 0.1 * len(keys)}
            writer.commit(_FINGERPRINT, [], RunFacts(0.12 * len(keys), phases, 1, "host", {"latentmill": "0"}))


def _row(
    shard: str,
    key: str,
    chance: random.Random,
    kinds: Mapping[str, Sequence[dict[str, Any]]],
    sizes: Mapping[str, tuple[int, int]] | None,
    *,
    bad: bool,
) -> dict[str, Any]:
    kind = chance.choices(list(kinds), (0.5, 0.3, 0.1, 0.1) if bad else (0.93, 0.04, 0.02, 0.01))[0]
    judged = kinds[kind][int(chance.random() * len(kinds[kind]))]
    drawn = (int(chance.gammavariate(4, 120)) + 60, int(chance.gammavariate(4, 150)) + 60)
    height, width = sizes[key] if sizes else drawn
    return judged | {"shard": shard, "key": key, "height": height, "width": width}


def _kinds(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Captions by what is wrong with them, judged by the caption rules."""
    made: dict[str, list[dict[str, Any]]] = {}
    for kind, count in (("good", _VARIETY), ("loop", 300), ("cut", 200), ("refusal", 20)):
        made[kind] = [
            _judged(_text(kind, chance), "length" if kind in ("cut", "loop") else "stop", chance) for _ in range(count)
        ]
    return made


def _text(kind: str, chance: random.Random) -> str:
    if kind == "refusal":
        return f"I'm sorry, but I cannot see the {chance.choice(_WORDS)} in this image."
    sentences = list(_sentences(chance, max(1, round(chance.gammavariate(6, 1)))))
    if kind == "cut":
        return " ".join(sentences) + " In the background there is a " + " ".join(chance.choices(_WORDS, k=4))
    if kind == "loop":
        return " ".join(
            sentences
        ) + f" There is a {chance.choice(_WORDS)} on the {chance.choice(_WORDS)}." * chance.randint(2, 12)
    return " ".join(sentences)


def _sentences(chance: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        words = " ".join(chance.choices(_WORDS, k=chance.randint(7, 18)))
        yield words[0].upper() + words[1:] + "."


def _judged(text: str, finish: Any, chance: random.Random) -> dict[str, Any]:
    cleaned, measured = clean(text, finish), measure(text)
    tokens = round(1.3 * measured.n_words) + 1
    return {
        "raw_caption": None if chance.random() < 0.1 else " ".join(chance.choices(_WORDS, k=chance.randint(1, 14))),
        "generated": text,
        "caption": cleaned.text,
        "status": cleaned.status.value,
        "flags": list(cleaned.flags),
        "finish_reason": finish,
        "error": None,
        "n_prompt_tokens": 620,
        "n_tokens": tokens,
        "n_t5_tokens": tokens if cleaned.text else None,
        "n_words": measured.n_words,
        "repeated_4grams": measured.repeated_4grams,
        "compression": measured.compression,
        "mean_logprob": -chance.gammavariate(3, 0.12),
        "prompt_id": "made-up",
        "rules_version": 1,
        "seed": -1,
    }


def _picture(seed: int) -> bytes:
    """A JPEG with detail at all scales, as photographs have: sums of noise at many sizes."""
    chance = np.random.default_rng(seed)
    height, width = (480, 640) if seed % 2 else (640, 427)
    total = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32, 64, 128):
        noise = Image.fromarray(chance.integers(0, 256, (scale, scale, 3), np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float64) / scale**0.7
    picture = (255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=40)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
