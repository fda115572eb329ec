"""How fast does the caption job go beside a plain loop? `python -m benchmarks.caption_speed --data DIR`

Both caption the same photographs (COCO and ImageNet, whole size, from one tar) with the same small LLaVA, in turns. The
plain loop is what captioning scripts do: decode a batch, the processor, `generate`, the next batch. Ours is the whole
job: decoding ahead, the engine, rules, a published Parquet unit. Untrained models never end a text, so in both a row
ends after as many tokens as one of LLaVA-1.5's real captions has (86 words on average, deviation 21), drawn by the
picture's name. CPU seconds are of all threads of the process, for machines that are shared; both clocks start once the
model is loaded. What comes out is compared: ours decodes large JPEGs at half their size, which changes pixels a little
and so some texts of an untrained model; with the same decoding in the plain loop all texts are the same.
"""

import argparse
import gzip
import io
import json
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import transformers
from PIL import Image
from rich.console import Console
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LogitsProcessor, LogitsProcessorList

from curation.captions.continuous import ContinuousBatches
from curation.captions.engine import Decoding, Engine
from curation.captions.prompts import prompt_named
from curation.captions.sampling import Integers, TokenRule
from curation.captions.stage import CaptionStage
from curation.captions.transformers_choice import LocalEngine
from curation.captions.transformers_engine import TransformersEngine
from curation.checkpoints import Checkpoint, resolve_checkpoint
from curation.demo.models import make_llava
from curation.execution.job import Job, JobOptions, run_job
from curation.execution.plan import plan_images
from curation.images.decode import DecodePolicy
from curation.images.resize import pad_to_square
from curation.shards.tar_writer import TarWriter
from curation.shards.target import Target
from curation.sources.table import source_named
from schemas.dataset import LedgerEntry
from schemas.reading import open_dataset
from schemas.tables import CAPTIONS

TOKENS_A_WORD = 4 / 3
MOST_TOKENS = 256
PHOTOGRAPHS = ("coco-photos/coco-photos.dev.tar", "imagenet-samples/imagenet-samples.dev.tar")


@dataclass(frozen=True, slots=True)
class EndingRule(TokenRule):
    """Greedy, but a row of seed s ends after `lengths[s % len(lengths)]` tokens, and no other way."""

    lengths: tuple[int, ...] = ()
    end: int = 0

    def choose(self, scores: Tensor, seeds: Integers, steps: Integers) -> tuple[Tensor, Tensor]:
        scores[:, self.end] = -torch.inf
        chosen, logprobs = TokenRule.choose(self, scores, seeds, steps)
        last = [step + 1 >= self.lengths[seed % len(self.lengths)] for seed, step in zip(seeds, steps, strict=True)]
        return torch.where(torch.tensor(last), self.end, chosen), logprobs


class EndingProcessor(LogitsProcessor):
    """The same for the plain loop, and no more than that."""

    def __init__(self, lengths: Sequence[int], end: int) -> None:
        self._lengths, self._end, self._step = torch.tensor(lengths), end, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` [B, V] with the end made certain or impossible."""
        self._step += 1
        scores[:, self._end] = torch.where(self._lengths <= self._step, torch.inf, -torch.inf)
        return scores


@dataclass(frozen=True, slots=True)
class BenchmarkChoice:
    """The transformers engine with captions of known length."""

    checkpoint: Checkpoint
    slots: int
    lengths: tuple[int, ...]
    opened: list[float]
    """CPU seconds of the process when the engine was there."""

    @property
    def identity(self) -> dict[str, Any]:
        """Of no use here."""
        return {"engine": "benchmark"}

    def open(self, decoding: Decoding, prompt: str) -> Engine:
        """As `TransformersChoice.open`, without the self-check."""
        engine = TransformersEngine(self.checkpoint, dtype="float32", device="cpu", decoding=decoding)
        engine.rule = EndingRule(0.0, 1.0, self.lengths, min(engine.end_tokens))
        self.opened.append(time.process_time())
        return LocalEngine(engine, ContinuousBatches(engine, self.slots))


@dataclass(frozen=True, slots=True)
class Spent:
    """What captioning all pictures took: wall seconds, and CPU seconds of all threads."""

    wall: float
    cpu: float


def main() -> None:
    """Make the model and the shard, run in turns, print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--pictures", type=int, default=640, help="the fewer, the more the end of a unit weighs")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--threads", type=int, default=1, help="of the model, in both; a Ray worker has one")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, shard = place / "llava", place / "photos.tar"
        _make_model(model)
        _write_shard(options.data, shard, options.pictures)
        choice = BenchmarkChoice(
            resolve_checkpoint(str(model), None), options.batch_size, _real_lengths(options.data), []
        )
        rows = _job(choice, shard, place / "warm-up", options.threads)[2]
        tokens = [row["n_tokens"] for row in rows.values()]
        print(
            f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, transformers "
            f"{transformers.__version__}; {len(rows)} photographs, batches of {options.batch_size}, "
            f"{statistics.fmean(tokens):.0f} tokens a caption (deviation {statistics.stdev(tokens):.0f})"
        )
        ratios = []
        for number in range(options.rounds):
            plain, texts = _plain_loop(model, shard, rows, options.batch_size)
            ours, entry, found = _job(choice, shard, place / f"out-{number}", options.threads)
            same = sum(texts[key] == row["generated"] for key, row in found.items())
            ratios.append((plain.wall / ours.wall, plain.cpu / ours.cpu))
            print(
                f"images/s: plain loop {len(rows) / plain.wall:.2f}, ours {len(rows) / ours.wall:.2f}: "
                f"x{ratios[-1][0]:.2f}; images a CPU second: {len(rows) / plain.cpu:.2f}, {len(rows) / ours.cpu:.2f}: "
                f"x{ratios[-1][1]:.2f}; {same} of {len(found)} texts the same; our seconds by phase: "
                + ", ".join(f"{name} {spent:.2f}" for name, spent in entry.run.phases.items())
                + f"; outside the model {1 - entry.run.phases['model'] / ours.wall:.1%}",
                flush=True,
            )
        wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"median of {options.rounds}: x{wall:.2f} images/s, x{cpu:.2f} images a CPU second")


@torch.inference_mode()
def _plain_loop(
    model_folder: Path, shard: Path, rows: dict[str, dict[str, Any]], batch_size: int
) -> tuple[Spent, dict[str, str]]:
    processor = AutoProcessor.from_pretrained(model_folder)
    processor.tokenizer.padding_side = "left"
    model: Any = AutoModelForImageTextToText.from_pretrained(model_folder).eval()
    colour = tuple(int(255 * value) for value in processor.image_processor.image_mean)
    content = [{"type": "image"}, {"type": "text", "text": prompt_named("sam").template}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    start, cpu = time.perf_counter(), time.process_time()
    texts: dict[str, str] = {}
    for batch in _batches(shard, batch_size):
        images = [pad_to_square(Image.open(io.BytesIO(data)).convert("RGB"), colour) for _, data in batch]
        inputs = processor(images=images, text=[prompt] * len(images), padding=True, return_tensors="pt")
        ending = EndingProcessor([rows[key]["n_tokens"] for key, _ in batch], model.config.text_config.eos_token_id)
        output = model.generate(
            **inputs, max_new_tokens=MOST_TOKENS, do_sample=False, logits_processor=LogitsProcessorList([ending])
        )
        decoded = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        texts.update(zip((key for key, _ in batch), decoded, strict=True))
    return Spent(time.perf_counter() - start, time.process_time() - cpu), texts


def _job(
    choice: BenchmarkChoice, shard: Path, out: Path, threads: int
) -> tuple[Spent, LedgerEntry, dict[str, dict[str, Any]]]:
    target, source = Target(str(out)), source_named("webdataset")
    stage = CaptionStage(
        target=target,
        source=source,
        choice=choice,
        prompt=prompt_named("sam"),
        decoding=Decoding(MOST_TOKENS, temperature=1.0),  # so that each row has a seed, by which the rule ends it
        policy=DecodePolicy(),
        seed=0,
        decode_threads=2,
    )
    plans = plan_images(target, [str(shard)], source.container, 0)
    job = Job(stage, target, source.name, [shard.stem], plans, 0)
    run_job(job, JobOptions(workers=1, use_ray=False), Console(file=io.StringIO()))
    cpu = time.process_time() - choice.opened[-1]
    torch.set_num_threads(threads)
    dataset = open_dataset(str(out), "captions").require_whole()
    rows = {row["key"]: row for table in dataset.tables(CAPTIONS) for row in table.to_pylist()}
    return Spent(dataset.entries[0].run.seconds, cpu), dataset.entries[0], rows


def _batches(shard: Path, size: int) -> Iterator[list[tuple[str, bytes]]]:
    batch = []
    with tarfile.open(shard) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            batch.append((member.name.partition(".")[0], content.read()))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _write_shard(data: Path, shard: Path, count: int) -> None:
    photographs = [photograph for name in PHOTOGRAPHS for photograph in _photographs(data / name)]
    with open(shard, "wb") as file:
        writer = TarWriter(file)
        for name, content in sorted(photographs)[:count]:
            writer.add(f"{name}.jpg", content)
        writer.finish()


def _photographs(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                yield PurePosixPath(member.name).stem, content.read()


def _real_lengths(data: Path) -> tuple[int, ...]:
    """Tokens of LLaVA-1.5's captions, from their words."""
    path = data / "dense-captions" / "opera-coco-machine.dev.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        captions = [row["caption"] for row in map(json.loads, file) if row["model"] == "llava-1.5"]
    return tuple(min(MOST_TOKENS, round(TOKENS_A_WORD * len(caption.split()))) for caption in captions)


def _make_model(folder: Path) -> None:
    """The tiny LLaVA's files with a model of 256 wide and 64 picture tokens in them."""
    make_llava(folder, image_px=112)
    config = AutoConfig.from_pretrained(folder)
    text = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8}
    for name, value in {**text, "num_key_value_heads": 8, "head_dim": 32}.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).eval().save_pretrained(folder)


if __name__ == "__main__":
    main()
