"""The latents stage: pictures of a shard in, one VAE posterior a readable picture out."""

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from curation.compute import Compute
from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.features.input_order import InputOrder
from curation.features.storage import store, to_float16
from curation.features.vae import Vae, VaeEncoder
from curation.images.buckets import Bucket, buckets_at, nearest_bucket
from curation.images.decode import DecodePolicy
from curation.images.reading import DecodedSample, RefusedRow, prepared_samples
from curation.images.resize import CropBox, cover_and_crop
from curation.shards.sinks import TableSink, TarSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.base import Source
from schemas.dataset import index_path, tar_path
from schemas.errors import UserError
from schemas.status import RejectReason
from schemas.tables import LATENTS_INDEX

EXTENSION: Final = "latent.npy"

BucketChoice: TypeAlias = Literal["square", "aspect"]

_STAGE_VERSION: Final = 2
_LONGEST_WAIT: Final = 1024
"""Rows that a picture of a rare bucket waits for company, after which its batch goes as it is. Until then all later
rows wait too, so this bounds memory."""


@dataclass(frozen=True, slots=True)
class LatentsStage:
    """Encodes `source`'s pictures with `vae` at `resolution`, square or by aspect bucket.

    With `flip` each picture is mirrored left to right after the crop, before it is encoded: the mirror of a latent is
    not the latent of the mirror. Both postures are two datasets, as two captions of a picture are.

    `batch_size` is part of the fingerprint: convolutions pick their algorithm by the size of the batch, which moves the
    last bits. (On a CPU a batch of one differs from larger ones by about 1e-6, which rounds 1 float16 value in 200 to
    600 the other way. So does another number of threads.)
    """

    target: Target
    source: Source
    vae: Vae
    resolution: int = 256
    buckets: BucketChoice = "square"
    policy: DecodePolicy = field(default_factory=DecodePolicy)
    batch_size: int = 8
    compute: Compute = field(default_factory=Compute)
    decode_threads: int = 2
    flip: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.decode_threads < 0 or self.resolution < 1:
            raise UserError("--size and --batch-size must be at least 1, and --decode-threads not negative.")
        cell = self.vae.downsample
        uneven = [b.name for b in self._sizes if b.height_px % cell or b.width_px % cell]
        if uneven:
            raise UserError(f"--size {self.resolution}: {uneven[0]} px is no multiple of the VAE's {cell} px a cell.")
        if self.compute.dtype == "float16" and self.vae.overflows_in_fp16:
            raise UserError(
                f"{self.vae.checkpoint.source}: overflows in float16 (force_upcast in its config.json). "
                f"Use --dtype float32 or bfloat16."
            )

    @property
    def _sizes(self) -> tuple[Bucket, ...]:
        if self.buckets == "aspect":
            return buckets_at(self.resolution)
        return (Bucket(1.0, self.resolution, self.resolution),)

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        policy = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.policy).items()}
        return StageSpec(
            name="latents",
            version=_STAGE_VERSION,
            schema=LATENTS_INDEX,
            config={
                "vae": self.vae.checkpoint.identity,
                "source": {"name": self.source.name, "version": self.source.version},
                "decode": policy,
                "resolution": self.resolution,
                "buckets": self.buckets,
                "batch_size": self.batch_size,
                **self.compute.config,
                **({"flip": True} if self.flip else {}),  # left out without, so that nothing made before is stale
            },
            facts={
                "scaling_factor": self.vae.scaling_factor,
                "shift_factor": self.vae.shift_factor,
                "channels": self.vae.channels,
                "downsample": self.vae.downsample,
                "resolution": self.resolution,
                "buckets": self.buckets,
                "dtype": "float16",
            },
        )

    @property
    def sizes_px(self) -> tuple[tuple[int, int], ...]:
        """(height, width) in pixels of every bucket."""
        return tuple((bucket.height_px, bucket.width_px) for bucket in self._sizes)

    @property
    def at_least(self) -> tuple[int, int]:
        """(height, width) in pixels that a scaled decode must keep: twice what fills any of the buckets.

        At once the size, what the decoder left out would be seen in the picture (docs/decode-policy.md).
        """
        return 2 * max(b.height_px for b in self._sizes), 2 * max(b.width_px for b in self._sizes)

    def bucket_of(self, height: int, width: int) -> Bucket:
        """The bucket of a picture of height × width."""
        if self.buckets == "aspect":
            return nearest_bucket(height, width, self.resolution)
        return self._sizes[0]

    def open(self) -> "LatentsWorker":
        """Load the VAE."""
        return LatentsWorker(self, VaeEncoder(self.vae, self.compute))


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture at the size of its bucket: uint8 [H, W, 3], and what the index says of it."""

    number: int
    key: str
    label: int | None
    bucket: Bucket
    original_height: int
    original_width: int
    crop: CropBox
    pixels: npt.NDArray[np.uint8]
    flipped: bool


@dataclass(frozen=True, slots=True)
class _Encoded:
    picture: _Picture
    posterior: npt.NDArray[np.float16] | None  # [2, C, h, w]; None if float16 cannot hold it


class LatentsWorker:
    """A loaded VAE.

    A batch holds pictures of one bucket in order of arrival, and one that is not full is filled up with copies of its
    first picture. So the model always sees batches of one size, and a picture's bytes do not depend on its neighbours,
    on how shards are cut into units, or on what was refused around it (tested on CPUs; elsewhere it holds as far as the
    kernels treat all rows of a batch alike). Batches follow from the unit's content alone, so repeated runs agree in
    any case. Output is in the order of the input.
    """

    def __init__(self, stage: LatentsStage, encoder: VaeEncoder) -> None:
        self._stage, self._encoder = stage, encoder

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Encode the unit."""
        stage = self._stage
        out = _Output(unit, writer, clock)
        waiting: dict[str, list[_Picture]] = {}
        samples = prepared_samples(
            stage.target,
            unit,
            stage.source,
            stage.policy,
            self._prepare,
            at_least=stage.at_least,
            threads=stage.decode_threads,
            ahead=2 * stage.batch_size,
            clock=clock,
        )
        with closing(samples):
            for number, made in enumerate(samples):
                if isinstance(made, RefusedRow):
                    out.put(number, made)
                else:
                    picture = dataclasses.replace(made, number=number)
                    waiting.setdefault(picture.bucket.name, []).append(picture)
                due = [
                    name
                    for name, batch in waiting.items()
                    if len(batch) == stage.batch_size or number - batch[0].number >= _LONGEST_WAIT
                ]
                for name in due:
                    self._encode(waiting.pop(name), out, clock)
        for batch in waiting.values():
            self._encode(batch, out, clock)

    def encode_alone(self, read: DecodedSample) -> tuple[dict[str, Any], npt.NDArray[np.float16] | None]:
        """The columns of the index that tell of the picture, and its posterior [2, C, h, w], as `process` makes them;
        None if float16 cannot hold it."""
        picture = self._prepare(read)
        pixels = np.stack([picture.pixels] * self._stage.batch_size)
        return _index_columns(picture), to_float16(self._encoder.encode(pixels)[0])

    def close(self) -> None:
        """Give back the model."""
        self._encoder.close()

    def _prepare(self, read: DecodedSample) -> _Picture:
        decoded = read.decoded
        bucket = self._stage.bucket_of(decoded.original_height, decoded.original_width)
        image, crop = cover_and_crop(decoded.image, bucket.height_px, bucket.width_px)
        pixels = np.asarray(image)
        return _Picture(
            number=-1,
            key=read.key,
            label=read.sample.label,
            bucket=bucket,
            original_height=decoded.original_height,
            original_width=decoded.original_width,
            crop=crop,
            pixels=pixels[:, ::-1] if self._stage.flip else pixels,
            flipped=self._stage.flip,
        )

    def _encode(self, batch: Sequence[_Picture], out: "_Output", clock: PhaseClock) -> None:
        with clock.phase("model"):
            filling = [batch[0].pixels] * (self._stage.batch_size - len(batch))
            posteriors = self._encoder.encode(np.stack([*(p.pixels for p in batch), *filling]))
        for picture, posterior in zip(batch, posteriors[: len(batch)], strict=True):
            out.put(picture.number, _Encoded(picture, to_float16(posterior)))


class _Output:
    """Writes rows in the order of the input, however they come."""

    def __init__(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        self._shard, self._writer, self._clock = unit.planned.shard, writer, clock
        self._tar: TarSink = writer.tar(tar_path(unit.name))
        self._index: TableSink = writer.table(index_path(unit.name), LATENTS_INDEX)
        self._order: InputOrder[_Encoded | RefusedRow] = InputOrder()

    def put(self, number: int, row: _Encoded | RefusedRow) -> None:
        self._order.put(number, row)
        with self._clock.phase("write"):
            for ready in self._order.ready():
                self._write(ready)

    def _write(self, row: _Encoded | RefusedRow) -> None:
        if isinstance(row, RefusedRow):
            self._writer.reject(row.key, row.reason, row.detail)
            return
        picture = row.picture
        if row.posterior is None:
            self._writer.reject(picture.key, RejectReason.NON_FINITE, "its latents are not finite in float16")
            return
        place = store(self._tar, picture.key, EXTENSION, row.posterior)
        self._index.write([{"key": picture.key, "shard": self._shard, **place, **_index_columns(picture)}])
        self._writer.keep(picture.key)


def _index_columns(picture: _Picture) -> dict[str, Any]:
    return {
        "bucket": picture.bucket.name,
        "height_px": picture.bucket.height_px,
        "width_px": picture.bucket.width_px,
        "original_height": picture.original_height,
        "original_width": picture.original_width,
        **dataclasses.asdict(picture.crop),
        "flipped": picture.flipped,
        "label": picture.label,
    }
