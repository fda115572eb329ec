"""The data of all arms, made once by the ordinary commands.

Pictures of one thing each, squares alone (a square cut out of another shape would cut things off), and of those the
ones that have an alt text as well as a usable caption of the small LLaVA: so all arms train on the same pictures.
"""

import json
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from benchmarks.claims.arms import DENSE, RAW, Sizes
from benchmarks.claims.commands import command
from curation.demo.shipped import LLAVA, VAE

_ROWS = 1_000  # pictures a shard
_USABLE = '[[filter]]\ncolumn = "captions.status"\nin = ["ok", "trimmed"]\n'
_HAS_ALT = '[[filter]]\ncolumn = "captions.raw_caption"\nnot_in = [""]\n'
_DONE = "done"

PROMPTS: Final = {
    "caption": "prompts-caption.jsonl",
    "described": "prompts-described.jsonl",
    "short": "prompts-short.jsonl",
}
"""The prompts by kind, below the data's directory, each with the truth of its scene: in the captioner's
words, as training has it; in those of the scene's own description; and noun and colour alone, as alt texts have it."""


def make_data(out: Path, sizes: Sizes) -> None:
    """Everything below `out`; does nothing if it is there."""
    if (out / _DONE).exists():
        return
    log = out / "log.txt"
    out.mkdir(parents=True, exist_ok=True)
    (out / "usable.toml").write_text(_USABLE + _HAS_ALT)
    command(["tiny_models", "--out", f"{out}/models"], log)
    for name, layout, split, seed, drawn in (
        ("train", "laion", "train", 0, sizes.drawn),
        ("test", "laion", "test", 0, sizes.drawn_for_test),
        ("pixel", "imagenet", "train", 1, sizes.drawn_for_pixel),
    ):
        rows = min(drawn, _ROWS)
        things = ["--things", "1"] if layout == "laion" else []
        shards = f"--out {out}/shards/{name} --shards {drawn // rows} --rows {rows} --broken 0".split()
        command(["demo_shards", "--layout", layout, "--split", split, "--seed", str(seed), *things, *shards], log)
        _features(out, name, "imagenet" if layout == "imagenet" else "webdataset", sizes.size_px, log)
    write_prompts(out, sizes.prompts)
    (out / _DONE).touch()


def latents_of(out: Path, name: str) -> str:
    """The latents of train, test or pixel."""
    return f"{out}/latents/{name}"


def text_of(out: Path, name: str, variant: str) -> str:
    """The text of train or test: DENSE or RAW."""
    return f"{out}/text-{variant}/{name}"


def _features(out: Path, name: str, source: str, size_px: int, log: Path) -> None:
    """What training reads of the pictures `name`; of those of stage 1 there are no captions."""
    pictures = ["--shards", f"{out}/shards/{name}/*.tar", "--source", source]
    keep, alone = f"{out}/keep-{name}.parquet", ["--executor", "inline"]
    command(["measure", *pictures, "--out", f"{out}/measures/{name}", *alone], log)
    squares = f"{out}/squares-{name}.parquet" if source == "webdataset" else keep
    square = ["--min", "aspect=0.99", "--max", "aspect=1.01"]
    command(["select", "--table", f"{out}/measures/{name}", *square, "--out", squares], log)
    if source == "webdataset":
        captions = f"{out}/captions/{name}"
        counted = ["--t5-tokenizer", f"{out}/models/t5", "--max-new-tokens", "160", "--batch-size", "32"]
        command(
            ["caption", *pictures, "--select", squares, "--model", str(LLAVA), *counted, "--out", captions, *alone], log
        )
        command(["select", "--table", captions, "--recipe", f"{out}/usable.toml", "--out", keep], log)
        for variant, column in ((DENSE, "caption"), (RAW, "raw_caption")):
            read = ["--captions", captions, "--select", keep, "--t5", f"{out}/models/t5", "--column", column]
            command(["text", *read, "--out", text_of(out, name, variant), *alone], log)
    coded = ["--vae", str(VAE), "--size", str(size_px), "--select", keep, "--batch-size", "32"]
    command(["latents", *pictures, *coded, "--out", latents_of(out, name), *alone], log)


def write_prompts(out: Path, count: int) -> None:
    """The first `count` test scenes that were kept, told in each way; the truth beside it."""
    kept = {row["key"] for row in pq.read_table(out / "keep-test.parquet").to_pylist()}
    captions = {
        row["key"]: row["caption"]
        for path in sorted((out / "captions" / "test").glob("*.parquet"))
        for row in pq.read_table(path, columns=["key", "caption"]).to_pylist()
    }
    told = sorted((out / "shards" / "test").glob("*.truth.jsonl"))
    truths = [truth for path in told for truth in map(json.loads, path.read_text().splitlines())]
    chosen = [truth for truth in truths if truth["key"] in kept][:count]
    for kind, path in PROMPTS.items():
        lines = [{"prompt": _prompt(kind, truth, captions[truth["key"]]), **truth} for truth in chosen]
        (out / path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _prompt(kind: str, truth: dict[str, Any], caption: str) -> str:
    thing = truth["things"][0]
    short = f"a {thing['colour']} {thing['noun']}"
    return {"caption": caption, "described": str(truth["description"]), "short": short}[kind]
