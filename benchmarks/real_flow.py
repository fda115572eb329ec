"""The whole flow on real photographs: `python -m benchmarks.real_flow --data DIR --out DIR`

`--data` holds the folders coco-photos, imagenet-samples and sa1b-samples: photographs in plain tars, captions and
labels beside them. They are written as shards of the three layouts, and every command runs on them in order
with the small checkpoints, as a person would type it.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from curation.demo.shipped import LLAVA
from curation.shards.tar_writer import TarWriter

Members = Iterable[tuple[str, bytes]]


def main() -> None:
    """Write the shards, run the commands, stop at the first that fails."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--steps", type=int, default=200)
    command.add_argument("--workers", type=int, default=2)
    options = command.parse_args()
    out: Path = options.out
    write_shards(options.data, out / "shards")
    _run(["pipelines.tiny_models", "--out", str(out / "models")])
    for source, pattern in (("sam", "sa_*.tar"), ("imagenet", "imagenet-*.tar"), ("webdataset", "coco-*.tar")):
        values = {
            "out": out,
            "llava": LLAVA,
            "here": out / source,
            "workers": options.workers,
            "steps": options.steps,
            "prompt": "laion" if source == "webdataset" else "sam",
            "prompt_1": "a red car in a street",
            "prompt_2": "a bowl of fruit on a table",
        }
        for line in _COMMANDS:
            pictures = line.replace("{pictures}", f"--shards {{out}}/shards/{pattern} --source {source}")
            _run([part.format(**values) for part in f"pipelines.{pictures}".split()])


def write_shards(data: Path, out: Path) -> None:
    """The photographs as tars in the layouts of COCO-like webdatasets, ImageNet and SA-1B."""
    captions = {row["file"]: row for row in _rows(data / "coco-photos" / "captions.dev.jsonl")}
    labels = {row["file"]: row for row in _rows(data / "imagenet-samples" / "labels.dev.jsonl")}

    def coco(name: str, image: bytes) -> Members:
        row, key = captions[name], name.partition(".")[0]
        about = {name: row[name] for name in ("coco_id", "width", "height", "licence")}
        yield from ((f"{key}.jpg", image), (f"{key}.txt", row["captions"][0].encode()))
        yield f"{key}.json", json.dumps(about).encode()

    def imagenet(name: str, image: bytes) -> Members:
        key = name.partition(".")[0]
        yield from ((f"{key}.JPEG", image), (f"{key}.cls", str(labels[name]["index"]).encode()))

    def sam(name: str, image: bytes) -> Members:
        key = name.partition(".")[0]
        yield from ((f"./{key}.jpg", image), (f"./{key}.json", json.dumps({"annotations": []}).encode()))

    _write(data / "coco-photos" / "coco-photos.dev.tar", out, "coco-{:05d}.tar", 80, coco)
    _write(data / "imagenet-samples" / "imagenet-samples.dev.tar", out, "imagenet-{:04d}.tar", 150, imagenet)
    _write(data / "sa1b-samples" / "sa1b-images.dev.tar", out, "sa_{:06d}.tar", 100, sam)


def _write(source: Path, out: Path, name: str, rows: int, members: Callable[[str, bytes], Members]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as tar:
        files = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        for number, start in enumerate(range(0, len(files), rows)):
            path = out / name.format(number)
            if path.exists():
                continue
            aside = path.with_suffix(".tar.part")
            with open(aside, "wb") as file:
                writer = TarWriter(file)
                for member in files[start : start + rows]:
                    content = tar.extractfile(member)
                    assert content is not None
                    for made, data in members(PurePosixPath(member.name).name, content.read()):
                        writer.add(made, data)
                writer.finish()
            aside.replace(path)


def _rows(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


_COMMANDS = (
    "caption {pictures} --model {llava} --t5-tokenizer {out}/models/t5 --max-new-tokens 96 "
    # The small LLaVA says much the same of all photographs, for which the canary would stop it.
    "--canary 0 --workers {workers} --prompt {prompt} --out {here}/captions",
    "nouns --captions {here}/captions --out {here}/nouns",
    "latents {pictures} --vae {out}/models/vae --size 256 --out {here}/latents",
    # The small LLaVA's words about photographs are not worth keeping; as text to embed they will do.
    "text --captions {here}/captions --column generated --t5 {out}/models/t5 --out {here}/text",
    "train --latents {here}/latents --text {here}/text --model tiny/2 --steps {steps} --global-batch 16 --lr 2e-3 "
    "--warmup 20 --clip 1 --device cpu --out {here}/run",
    "sample --run {here}/run --t5 {out}/models/t5 --vae {out}/models/vae --steps 10 --device cpu --out {here}/samples "
    "--prompts {prompt_1} {prompt_2}",
    "report --captions {here}/captions --nouns {here}/nouns --latents {here}/latents --text {here}/text "
    "--run {here}/run {pictures} --out {here}/report.html",
)


def _run(line: list[str]) -> None:
    print(f"\n$ python -m {shlex.join(line)}", flush=True)
    start = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", *line], check=False).returncode
    print(f"-- exit code {code}, {time.perf_counter() - start:.1f} s", flush=True)
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
