"""From features on disk to one micro-batch on the device, through memory that is used again and again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.choices import DROPPED
from training.data.manifest import Manifest
from training.data.plan import GlobalBatch
from training.data.reader import Fault, Reader

TEXT_MULTIPLE: Final = 8  # text is padded to a multiple of it, so that few shapes occur


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A micro-batch as it was read. A sample that could not be read is zeros, one token long, and has weight 0."""

    posterior: Tensor  # [B, 2, C, h, w] float16: mean and standard deviation, unscaled
    text: Tensor  # [B, L, D] float16, zero beyond each length
    text_lengths: Tensor  # [B] int64
    sizes: Tensor  # [B, 3] float32: original height and width in pixels, bucket height / width
    weights: Tensor  # [B] float32: 1, or 0 for a sample that could not be read
    samples: Tensor  # [B] int64: the bits of the sample ids
    visits: Tensor  # [B] int64: how often the plan has used each sample before
    faults: tuple[Fault, ...]
    whole: int  # samples of the global batch that this is a part of


class Slot:
    """The memory of one micro-batch. It grows to the largest, and is then never made again.

    `pin` asks for page-locked memory: a copy from any other makes the host wait for the GPU.
    """

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with whatever the memory holds, which it shares with all former ones of that name."""
        size = math.prod(shape) * dtype.itemsize
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)
        return self._memory[name][:size].view(dtype).view(shape)


class Draft:
    """A micro-batch that is being read into `slot`. Parts of it may be read by different threads."""

    def __init__(self, manifest: Manifest, reader: Reader, slot: Slot, uses: GlobalBatch) -> None:
        self._reader, self._uses, self._null, self._form = reader, uses, manifest.null_text, reader.text_form
        rows, count, self._dropped = uses.rows, len(uses), uses.variants == DROPPED
        lengths = np.where(self._dropped, len(self._null), manifest.tokens[rows, uses.variants]).astype(np.int64)
        longest = -(-int(lengths.max()) // TEXT_MULTIPLE) * TEXT_MULTIPLE
        self._text_bytes = (np.where(self._dropped, 0, lengths) * self._form.token_bytes).tolist()  # to read
        self._posterior = slot.take("posterior", (count, *reader.latent_shape(uses.bucket)), torch.float16)
        self._text = slot.take("text", (count, longest, self._form.token_bytes), torch.uint8)
        height_px, width_px = manifest.buckets[uses.bucket]
        sizes = np.column_stack([manifest.original_size[rows], np.full(count, height_px / width_px)])
        self._facts = {
            "text_lengths": _filled(slot, "text_lengths", lengths),
            "sizes": _filled(slot, "sizes", sizes.astype(np.float32)),
            "weights": _filled(slot, "weights", np.ones(count, np.float32)),
            "samples": _filled(slot, "samples", uses.samples.view(np.int64)),
            "visits": _filled(slot, "visits", uses.visits),
        }

    def parts(self, count: int) -> list[NDArray[np.int64]]:
        """The uses in about `count` equal parts; neighbours on disk are in one part, one after the other."""
        order = self._reader.in_order(self._uses.rows)
        return [part for part in np.array_split(order, count) if len(part)]

    def read(self, part: NDArray[np.int64]) -> list[Fault]:
        """Read the uses `part` and fill up their text with zeros."""
        uses, memory = self._uses, self._posterior.view(-1).view(torch.uint8).numpy().data
        size = len(memory) // len(uses)
        bodies = [memory[i * size : (i + 1) * size] for i in part.tolist()]
        faults = [(part, fault) for fault in self._reader.read_latents(uses.rows[part], uses.flipped[part], bodies)]

        text = self._text.view(len(uses), -1).numpy()
        kept = part[~self._dropped[part]]
        bodies = [text[i].data[: self._text_bytes[i]] for i in kept.tolist()]
        faults += [(kept, fault) for fault in self._reader.read_text(uses.rows[kept], uses.variants[kept], bodies)]
        for i in part.tolist():
            text[i, self._text_bytes[i] :] = 0
        found = [Fault(int(among[fault.at]), fault.message, fault.damaged) for among, fault in faults]
        return list({fault.at: fault for fault in reversed(found)}.values())  # one a sample

    def finish(self, faults: Sequence[Fault], device: torch.device) -> Features:
        """The micro-batch on `device`, once all of it was read. On the CPU it lies in the slot."""
        for fault in faults:
            for tensor, value in ((self._posterior, 0), (self._text, 0), *self._blank()):
                tensor[fault.at] = value

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        text = self._form.decode(moved(self._text))
        null = moved(torch.tensor(self._null))
        for i in set(np.flatnonzero(self._dropped).tolist()) - {fault.at for fault in faults}:
            text[i, : len(null)] = null
        facts = {name: moved(tensor) for name, tensor in self._facts.items()}
        return Features(
            posterior=moved(self._posterior), text=text, faults=tuple(faults), whole=self._uses.whole, **facts
        )

    def _blank(self) -> tuple[tuple[Tensor, int], ...]:
        return (self._facts["weights"], 0), (self._facts["text_lengths"], 1)


def _filled(slot: Slot, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> Tensor:
    source = torch.from_numpy(values)
    return slot.take(name, values.shape, source.dtype).copy_(source)
