"""JourneyDB's archives as shards: each tgz unpacked to a plain tar, with its annotation beside each picture.

A gzip stream can only be read from its start, and every stage of ours reads at random (units are slices of a shard, a
lost worker reads again from where it was). So the archives are unpacked once, here; the pictures are JPEG, which gzip
does not make smaller. What an annotation means is left to the source `journeydb`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from curation.execution.clock import PhaseClock
from curation.execution.plan import ShardPlan
from curation.execution.prefetch import map_ahead
from curation.execution.stage import StageSpec, Unit
from curation.images.decode import DecodePolicy
from curation.ingest.images import CheckedImage, ImageWriter, check_image
from curation.ingest.keyed_index import KeyedIndex
from curation.ingest.keyed_rows import KeyedBy
from curation.refusal import Refusal
from curation.shards.container import read_archive
from curation.shards.grouping import Sample, relative_name, split_at_first_dot
from curation.shards.shard_index import read_samples
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.journeydb import JourneyDBSource, prompt_caption
from schemas.dataset import InputIdentity
from schemas.status import RejectReason
from schemas.tables import IMAGES

KEYED: Final = KeyedBy(key="img_path", text=None)

_STAGE_VERSION: Final = 1
_THREADS: Final = 4
_AHEAD: Final = 32


@dataclass(frozen=True, slots=True)
class JourneyDBStage:
    """`index` is the file of the annotations' index, see curation.ingest.keyed_index."""

    target: Target
    policy: DecodePolicy
    index: str

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        source = JourneyDBSource()
        return StageSpec(
            name="ingest",
            version=_STAGE_VERSION,
            schema=IMAGES,
            config={"decode": asdict(self.policy), "source": {"name": source.name, "version": source.version}},
        )

    def open(self) -> "JourneyDBWorker":
        """Open the index."""
        return JourneyDBWorker(self)


class JourneyDBWorker:
    """Reads one archive through, once."""

    def __init__(self, stage: JourneyDBStage) -> None:
        self._stage = stage
        self._index = KeyedIndex(stage.index)
        self._source = JourneyDBSource()

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Unpack the archive, in its order."""
        images = ImageWriter(writer, unit)
        wanted: dict[str, Sample] = {}
        for sample in read_samples(self._stage.target, unit.url, unit.planned.start, unit.planned.stop):
            if sample.refused is None:
                wanted[sample.key] = sample
            else:
                writer.reject(sample.key, sample.refused, sample.detail)
        checked = map_ahead(self._check, self._pictures(unit, wanted), threads=_THREADS, ahead=_AHEAD)
        for _ in range(len(wanted)):
            with clock.phase("unpack and decode"):
                key, image = next(checked)
            with clock.phase("write"):
                self._write(unit, key, image, images, writer)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _pictures(self, unit: Unit, wanted: dict[str, Sample]) -> Iterator[tuple[str, bytes | Refusal]]:
        """The picture of each wanted sample, when all of its members have passed."""
        left = {key: set(sample.extensions) for key, sample in wanted.items()}
        parts: dict[str, bytes] = {}
        for member, content in read_archive(unit.url, gunzip=True):
            key, extension = split_at_first_dot(relative_name(member.name)) or ("", "")
            if key not in left:
                continue
            parts[extension] = content
            left[key].discard(extension)
            if not left[key]:
                del left[key]
                members = self._source.members(tuple(parts))
                yield key, members if isinstance(members, Refusal) else parts[members[0]]
                parts = {}
            if not left:  # what follows is damaged, if anything follows
                return

    def _check(self, item: tuple[str, bytes | Refusal]) -> tuple[str, CheckedImage | Refusal]:
        key, data = item
        return key, data if isinstance(data, Refusal) else check_image(data, self._stage.policy)

    def _write(
        self, unit: Unit, key: str, image: CheckedImage | Refusal, images: ImageWriter, writer: UnitWriter
    ) -> None:
        told = self._annotation(unit.planned.shard, key)
        caption = told if isinstance(told, Refusal) else prompt_caption(told)
        if isinstance(image, Refusal):
            writer.reject(key, image.reason, image.detail)
        elif isinstance(told, Refusal):
            writer.reject(key, told.reason, told.detail)
        elif isinstance(caption, Refusal):
            writer.reject(key, caption.reason, caption.detail)
        else:
            if not told:
                writer.count("pictures without annotation")
            images.write(key, image, caption, told)

    def _annotation(self, archive: str, key: str) -> dict[str, Any] | Refusal:
        """The annotation of picture `key`, empty if there is none; some archives hold pictures without a folder."""
        names = (key, f"{archive}/{key.rpartition('/')[2]}")
        found = self._index.texts(names)
        texts = next((found[name] for name in names if name in found), ())
        if len(texts) > 1:
            return Refusal(RejectReason.BAD_METADATA, f"{len(texts)} different annotations for one picture")
        annotation: dict[str, Any] = json.loads(texts[0]) if texts else {}
        return annotation


def with_annotations(plans: Iterator[ShardPlan], annotations: InputIdentity) -> Iterator[ShardPlan]:
    """`plans` with the annotations as an input of each unit."""
    for plan in plans:
        yield replace(plan, units=tuple(replace(unit, inputs=(*unit.inputs, annotations)) for unit in plan.units))
