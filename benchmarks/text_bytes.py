"""What does a caption's embedding weigh, and what does int8 cost? `python -m benchmarks.text_bytes --data DIR`

Real captions (LLaVA-1.5's of COCO pictures; LAION alt text) through a T5 encoder of the true width, 4096, with random
weights and two layers. Its tokenizer is trained here on treebank sentences, since T5's own may not be at hand: lengths
are near T5's, not the same. Random weights end in a plain layer norm that makes all channels alike, which trained ones
do not. So there is a second set of values, with log-normal weights there and 16 channels 30 times as large.

fp8 (e4m3, with a scale a token or a group of channels, at int8's size) is measured here and offered nowhere: see
docs/LOG.md.
"""

import argparse
import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import T5Config, T5EncoderModel

from curation.features.codec import CodecError, encode, encode_int8
from curation.features.storage import npy_bytes
from schemas.embedding import decode_embedding

WIDTH, LIMIT, VOCABULARY = 4096, 120, 32_000
LARGEST_FP8 = float(torch.finfo(torch.float8_e4m3fn).max)
PADDED = {"padded fp32 + mask": LIMIT * WIDTH * 4 + LIMIT * 8, "padded fp16 + mask": LIMIT * WIDTH * 2 + LIMIT * 8}
GROUPS = (32, 64, 128, 256, WIDTH)

Values = npt.NDArray[np.float32]


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--captions", type=int, default=200)
    options = command.parse_args()
    tokenizer = wide_tokenizer(options.data)
    model = wide_encoder()
    weights = heavy_weights()
    for name, captions in (("dense", _dense(options.data)), ("alt text", _alt(options.data))):
        chosen = list(itertools.islice(captions, options.captions))
        embedded = list(_embed(model, tokenizer, chosen))
        tokens = np.array([len(values) for values in embedded])
        words = np.mean([len(caption.split()) for caption in chosen])
        full = np.mean(tokens == LIMIT)
        print(
            f"\n{name}: {len(chosen)} captions, {words:.1f} words, {tokens.mean():.1f} tokens, {full:.0%} at the limit"
        )
        for form, size in PADDED.items():
            print(f"  {form:20} {size:12,} B/sample")
        for kind, all_values in (("alike", embedded), ("heavy", [values * weights for values in embedded])):
            _report(f"fp16 {kind}", all_values, lambda values: encode(values, "fp16"))
            for group in GROUPS:
                _report(f"int8/{group} {kind}", all_values, partial(encode_int8, groups=WIDTH // group))
            for group in (64, WIDTH):
                _report_fp8(f"fp8/{group} {kind}", all_values, WIDTH // group)


def _report(name: str, embedded: list[Values], store: Callable[[Values], npt.NDArray[np.generic] | None]) -> None:
    error, size, seconds = CodecError(), 0, dict.fromkeys(("store", "measure", "read"), 0.0)
    for values in embedded:
        marks = [time.perf_counter()]
        stored = store(values)
        assert stored is not None
        marks.append(time.perf_counter())
        error.add(values, stored)
        marks.append(time.perf_counter())
        decode_embedding(stored, "")
        marks.append(time.perf_counter())
        size += len(npy_bytes(stored))
        for step, before, after in zip(seconds, marks[:-1], marks[1:], strict=True):
            seconds[step] += after - before
    times = ", ".join(f"{step} {1e3 * spent / len(embedded):.2f}" for step, spent in seconds.items())
    figures = error.figures
    relative, worst = figures["codec_relative_l2"], figures["codec_worst_token_l2"]
    print(
        f"  {name:20} {size / len(embedded):12,.0f} B/sample  1 - cosine {1 - figures['codec_mean_cosine']:.1e}  "
        f"relative L2 {relative:.3%}  worst token {worst:.3%}  ms: {times}"
    )


def _report_fp8(name: str, embedded: list[Values], groups: int) -> None:
    """As `_report`, for what is stored nowhere: float8 has no numpy type, so the decoded values are compared."""
    error, size = CodecError(), 0
    for values in embedded:
        grouped = torch.from_numpy(values).reshape(len(values), groups, -1)
        scale = (grouped.abs().amax(dim=2, keepdim=True) / LARGEST_FP8).half().float().clamp(min=1e-7)
        decoded = (grouped / scale).to(torch.float8_e4m3fn).float() * scale
        error.add(values, decoded.reshape(values.shape).half().numpy())
        size += len(values) * (WIDTH + 2 * groups)
    figures = error.figures
    print(
        f"  {name:20} {size / len(embedded):12,.0f} B/sample  1 - cosine {1 - figures['codec_mean_cosine']:.1e}  "
        f"relative L2 {figures['codec_relative_l2']:.3%}  worst token {figures['codec_worst_token_l2']:.3%}"
    )


def heavy_weights() -> Values:
    """What makes channels as unlike as trained ones: log-normal factors [D], 16 of them 30 times as large."""
    noise = np.random.default_rng(0)
    weights = np.exp(noise.standard_normal(WIDTH)).astype(np.float32)
    weights[noise.choice(WIDTH, 16, replace=False)] *= 30
    return weights


def wide_encoder() -> T5EncoderModel:
    """A T5 encoder of the true width, random weights."""
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 16, "vocab_size": VOCABULARY}
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu", dropout_rate=0.0)).eval()


def _embed(model: T5EncoderModel, tokenizer: Tokenizer, captions: list[str]) -> Iterator[Values]:
    for caption in captions:
        ids = [*tokenizer.encode(caption).ids[: LIMIT - 1], 1]
        with torch.inference_mode():
            yield model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


def wide_tokenizer(data: Path) -> Tokenizer:
    """A tokenizer for it, trained on treebank sentences; adds no end token."""
    sentences = []
    for path in sorted((data / "ud-english").glob("*.conllu.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            sentences += [line[9:].strip() for line in file if line.startswith("# text = ")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    return tokenizer


def _dense(data: Path) -> Iterator[str]:
    with gzip.open(data / "dense-captions/opera-coco-machine.dev.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["model"] == "llava-1.5":
                yield row["caption"]


def _alt(data: Path) -> Iterator[str]:
    yield from (
        text for text in pq.read_table(data / "alt-text/laion-url-text.dev.parquet")["TEXT"].to_pylist() if text
    )


if __name__ == "__main__":
    main()
