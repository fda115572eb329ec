"""Does int8 text change what a model learns? `python -m benchmarks.codec_loss --data DIR --out DIR`

Real photographs (COCO) with their five human captions run together, through a T5 of the true width, 4096, with random
weights, stored as fp16 and as int8; then the small PixArt trains on either for as many steps, from several seeds. The
last layer norm of the T5 is made as uneven as `benchmarks.text_bytes` has it (16 channels 30 times as large), since a
plain one would spare int8 what trained weights ask of it. Losses are means over the last fifth of the steps.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from benchmarks.text_bytes import heavy_weights, wide_encoder, wide_tokenizer
from curation.shards.tar_writer import TarWriter
from training.watching.metrics import read_metrics

CODECS = ("fp16", "int8")


def main() -> None:
    """Make the features once, train each codec from each seed, print the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True, help="made anew or gone on with")
    command.add_argument("--steps", type=int, default=1000)
    command.add_argument("--seeds", type=int, default=3)
    options = command.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    _features(options.data, out)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.steps} steps of 16, PixArt tiny/2")
    losses: dict[str, list[float]] = {codec: [] for codec in CODECS}
    for seed in range(options.seeds):
        for codec in CODECS:
            losses[codec].append(_trained(out, codec, seed, options.steps))
        fp16, int8 = (losses[codec][-1] for codec in CODECS)
        print(f"seed {seed}: fp16 {fp16:.5f}, int8 {int8:.5f}, int8 - fp16 {int8 - fp16:+.5f}", flush=True)
    differences = [int8 - fp16 for fp16, int8 in zip(losses["fp16"], losses["int8"], strict=True)]
    print(
        f"int8 - fp16: {statistics.fmean(differences):+.5f} on average, {max(map(abs, differences)):.5f} at most; "
        f"seeds of fp16 spread by {statistics.stdev(losses['fp16']):.5f} (standard deviation)"
    )


def _features(data: Path, out: Path) -> None:
    shard, t5 = out / "coco-00000.tar", out / "t5"
    if not shard.exists():
        _write_shard(data / "coco-photos", shard)
    if not t5.exists():
        _write_t5(data, t5)
    pictures = ["--shards", str(shard), "--source", "webdataset"]
    _run("tiny_models", "--out", f"{out}/models")
    # One generated token: the LLaVA is not what is asked about, the raw captions are what is embedded.
    _run("caption", *pictures, "--model", f"{out}/models/llava", "--max-new-tokens", "1", "--out", f"{out}/captions")
    _run("latents", *pictures, "--vae", f"{out}/models/vae", "--size", "64", "--out", f"{out}/latents")
    for codec in CODECS:
        captions = ["--captions", f"{out}/captions", "--column", "raw_caption"]
        _run("text", *captions, "--t5", str(t5), "--codec", codec, "--out", f"{out}/text-{codec}")
        for entry in sorted((out / f"text-{codec}" / "ledger").glob("*.json")):
            print(f"{codec}: {json.loads(entry.read_text())['measures']}")


def _trained(out: Path, codec: str, seed: int, steps: int) -> float:
    run = out / f"run-{codec}-{seed}-{steps}"
    recipe = ["--model", "tiny/2", "--steps", str(steps), "--global-batch", "16", "--lr", "1e-3", "--clip", "1"]
    recipe += ["--warmup", "50", "--seed", str(seed), "--log-every", "50", "--save-every", str(steps)]
    features = ["--latents", f"{out}/latents", "--text", f"{out}/text-{codec}"]
    _run("train", *features, *recipe, "--device", "cpu", "--out", str(run))
    losses = [loss for record in read_metrics(run) for loss in record["step_loss"]]
    return statistics.fmean(losses[-(steps // 5) :])


def _write_shard(photos: Path, shard: Path) -> None:
    with open(photos / "captions.dev.jsonl", encoding="utf-8") as file:
        captions = {row["file"]: " ".join(row["captions"]) for row in map(json.loads, file)}
    aside = shard.with_suffix(".part")
    with tarfile.open(photos / "coco-photos.dev.tar") as tar, open(aside, "wb") as file:
        writer = TarWriter(file)
        for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
            name, content = PurePosixPath(member.name), tar.extractfile(member)
            assert content is not None
            writer.add(f"{name.stem}.jpg", content.read())
            writer.add(f"{name.stem}.txt", captions[name.name].encode())
        writer.finish()
    aside.replace(shard)


def _write_t5(data: Path, folder: Path) -> None:
    encoder = wide_encoder()
    with torch.no_grad():
        encoder.encoder.final_layer_norm.weight.copy_(torch.from_numpy(heavy_weights()))
    tokenizer = wide_tokenizer(data)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    encoder.config.pad_token_id, encoder.config.eos_token_id = tokenizer.token_to_id("<pad>"), end
    encoder.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="<pad>", padding_side="right"
    ).save_pretrained(folder)


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"pipelines.{name}", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pipelines.{name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    main()
