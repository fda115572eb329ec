"""From features on disk to one micro-batch on the device, through memory that is used again and again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.choices import DROPPED
from training.data.manifest import Manifest
from training.data.plan import GlobalBatch
from training.data.reader import Fault, Reader
from training.data.slot import Slot
from training.models.text_lengths import padded_length


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A micro-batch as it was read. A sample that could not be read is zeros, one token long, and has weight 0."""

    posterior: Tensor  # [B, 2, C, h, w] float16: mean and standard deviation, unscaled
    text: Tensor  # [B, L, D] float16, zero beyond each length; L is one of few; [B, 0, 0] where there is no text
    text_lengths: Tensor  # [B] int64
    lengths_on_host: tuple[int, ...]  # the same, without asking the device
    labels: Tensor  # [B] int64: the class; -1 where it is dropped, or there is none
    sizes: Tensor  # [B, 3] float32: original height and width in pixels, bucket height / width
    weights: Tensor  # [B] float32: 1, or 0 for a sample that could not be read
    samples: Tensor  # [B] int64: the bits of the sample ids
    visits: Tensor  # [B] int64: how often the plan has used each sample before
    faults: tuple[Fault, ...]
    whole: int  # samples of the global batch that this is a part of


class Draft:
    """A micro-batch that is being read into `slot`. Parts of it may be read by different threads."""

    def __init__(self, manifest: Manifest, reader: Reader, slot: Slot, uses: GlobalBatch) -> None:
        self._reader, self._uses, self._null, self._form = reader, uses, manifest.null_text, reader.text_form
        rows, count, self._dropped = uses.rows, len(uses), uses.variants == DROPPED
        self._has_text = bool(manifest.text)
        lengths = _text_lengths(manifest, uses)
        self._longest = padded_length(int(lengths.max())) if self._has_text else 0
        self._lengths = lengths
        self._text_bytes = (lengths * self._form.token_bytes).tolist()
        self._posterior = slot.take("posterior", (count, *reader.latent_shape(uses.bucket)), torch.float16)
        self._text = slot.take_rows((count, self._longest, self._form.token_bytes))
        self._integers = slot.take("integers", (4, count), torch.int64)  # lengths, labels, samples, visits
        labels = np.where(self._dropped, -1, manifest.label[rows])
        self._integers.numpy()[:] = lengths, labels, uses.samples.view(np.int64), uses.visits
        self._reals = slot.take("reals", (count, 4), torch.float32)  # sizes, weights
        height_px, width_px = manifest.buckets[uses.bucket]
        reals = self._reals.numpy()
        reals[:, :2], reals[:, 2], reals[:, 3] = manifest.original_size[rows], height_px / width_px, 1

    def parts(self, count: int) -> list[NDArray[np.int64]]:
        """The uses in about `count` equal parts; neighbours on disk are in one part, one after the other."""
        order = self._reader.in_order(self._uses.rows)
        return [part for part in np.array_split(order, count) if len(part)]

    def read(self, part: NDArray[np.int64]) -> list[Fault]:
        """Read the uses `part`."""
        uses, memory = self._uses, self._posterior.view(-1).view(torch.uint8).numpy().data
        size = len(memory) // len(uses)
        bodies = [memory[i * size : (i + 1) * size] for i in part.tolist()]
        faults = [(part, fault) for fault in self._reader.read_latents(uses.rows[part], uses.flipped[part], bodies)]

        texts = {i: self._text.write_to(i, self._text_bytes[i]) for i in part.tolist()}
        kept = part[~self._dropped[part] & self._has_text]
        bodies = [texts[i] for i in kept.tolist()]
        faults += [(kept, fault) for fault in self._reader.read_text(uses.rows[kept], uses.variants[kept], bodies)]
        found = [Fault(int(among[fault.at]), fault.message, fault.damaged) for among, fault in faults]
        return list({fault.at: fault for fault in reversed(found)}.values())  # one a sample

    def finish(self, faults: Sequence[Fault], device: torch.device) -> Features:
        """The micro-batch on `device`, once all of it was read. On the CPU it lies in the slot."""
        for fault in faults:
            self._text.write_to(fault.at, 0)
            self._posterior[fault.at] = self._reals[fault.at, 3] = 0
            self._integers[0, fault.at] = min(1, self._longest)

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        text = self._form.decode(moved(self._text.memory)[:, : self._longest])
        dropped = set(np.flatnonzero(self._dropped & self._has_text).tolist()) - {fault.at for fault in faults}
        null = moved(torch.tensor(self._null)) if dropped else torch.empty(0)
        for i in dropped:
            rows = int(self._lengths[i])
            text[i, :rows] = null[:rows]
        lengths, labels, samples, visits = moved(self._integers)
        reals = moved(self._reals)
        return Features(
            posterior=moved(self._posterior),
            text=text,
            text_lengths=lengths,
            lengths_on_host=tuple(self._integers[0].tolist()),
            labels=labels,
            sizes=reals[:, :3],
            weights=reals[:, 3],
            samples=samples,
            visits=visits,
            faults=tuple(faults),
            whole=self._uses.whole,
        )


def _text_lengths(manifest: Manifest, uses: GlobalBatch) -> NDArray[np.int64]:
    """The true length of each use's text, int64 [B]; of dropped captions that of what stands in for them."""
    if not manifest.text:
        return np.zeros(len(uses), np.int64)
    dropped, tokens = uses.variants == DROPPED, manifest.tokens[uses.rows]
    # Where the null caption takes the caption's length, it is that of the first variant that the sample has.
    first = np.argmax(tokens > 0, axis=1)
    every = np.arange(len(uses))
    null = tokens[every, first] if manifest.null_fills_caption else len(manifest.null_text)
    return np.where(dropped, null, tokens[every, uses.variants]).astype(np.int64)
