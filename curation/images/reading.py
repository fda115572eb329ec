"""The rows of a unit as decoded pictures, read and decoded in threads ahead of the model, in the order of the shard."""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from curation.execution.clock import PhaseClock
from curation.execution.prefetch import map_ahead
from curation.execution.stage import LEFT_OUT, Unit
from curation.images.decode import Decoded, DecodePolicy, decode
from curation.refusal import Refusal
from curation.shards.container import Container, open_container
from curation.shards.grouping import Sample
from curation.shards.shard_index import read_samples, require_unchanged
from curation.shards.target import Target
from curation.sources.base import ImageSample, Source
from schemas.status import RejectReason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A row whose picture was decoded, with what its source says of it."""

    sample: ImageSample
    decoded: Decoded

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.sample.key


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that gives no picture, and why: what `UnitWriter.reject` takes."""

    key: str
    reason: RejectReason
    detail: str


def decoded_samples(
    target: Target,
    unit: Unit,
    source: Source,
    policy: DecodePolicy,
    *,
    at_least: tuple[int, int] | None = None,
    threads: int,
    ahead: int,
    clock: PhaseClock,
) -> Generator[DecodedSample | RefusedRow, None, None]:
    """Every row of `unit` exactly once, in order: `prepared_samples` with nothing to prepare."""
    return prepared_samples(
        target, unit, source, policy, _as_it_is, at_least=at_least, threads=threads, ahead=ahead, clock=clock
    )


def prepared_samples(
    target: Target,
    unit: Unit,
    source: Source,
    policy: DecodePolicy,
    prepare: Callable[[DecodedSample], T],
    *,
    at_least: tuple[int, int] | None = None,
    threads: int,
    ahead: int,
    clock: PhaseClock,
) -> Generator[T | RefusedRow, None, None]:
    """Every row of `unit` exactly once, in order: what `prepare` makes of it in the thread that decoded it, or why not.

    at_least: (height, width) in pixels that a scaled decode must keep, see `curation.images.decode.decode`. At most
    `ahead` pictures exist before they are taken; `threads` 0 works on demand. The time spent waiting for a picture
    counts to the phase "decode". What a selection leaves out is not read. Close the generator to leave early.

    Raises OSError if the shard is no longer what its index says; of a folder, if a file has another length.
    """
    require_unchanged(target, unit.url, source.container, unit.inputs)  # before hours of work on it, and after
    rows = read_samples(target, unit.url, unit.planned.start, unit.planned.stop)
    with ExitStack() as stack:
        container = open_container(unit.url, source.container)
        stack.callback(container.close)

        def one(row: Sample) -> T | RefusedRow:
            if unit.leaves_out(row.key):
                return RefusedRow(row.key, RejectReason.NOT_SELECTED, LEFT_OUT)
            found = _decode_row(container, unit.url, row, source, policy, at_least)
            return RefusedRow(row.key, found.reason, found.detail) if isinstance(found, Refusal) else prepare(found)

        pending = map_ahead(one, rows, threads=threads, ahead=ahead)
        stack.callback(pending.close)  # before the container: its threads may still be reading
        for _ in rows:
            with clock.phase("decode"):
                made = next(pending)
            yield made
    require_unchanged(target, unit.url, source.container, unit.inputs)


def _as_it_is(sample: DecodedSample) -> DecodedSample:
    return sample


def _decode_row(
    container: Container,
    url: str,
    row: Sample,
    source: Source,
    policy: DecodePolicy,
    at_least: tuple[int, int] | None,
) -> DecodedSample | Refusal:
    if row.refused is not None:
        return Refusal(row.refused, row.detail)
    wanted = source.members(row.extensions)
    if isinstance(wanted, Refusal):
        return wanted
    members = container.read(row, wanted)
    sizes = dict(zip(row.extensions, row.sizes, strict=True))
    for extension, content in members.items():
        if len(content) != sizes[extension]:
            raise OSError(
                f"{url}: {row.key}.{extension} has {len(content)} bytes, its index says {sizes[extension]}; "
                f"the shard changed while it was read"
            )
    sample = source.sample(row.key, members)
    if isinstance(sample, Refusal):
        return sample
    decoded = decode(sample.image, policy, at_least=at_least)
    return decoded if isinstance(decoded, Refusal) else DecodedSample(sample, decoded)
