"""Which thumbnails the report shows, and how large: the same answer for who reads them and who places them."""

from typing import Final

from curation.report.captions import CaptionFindings
from curation.report.chosen import ChosenSample
from curation.report.crops import CroppedSample
from curation.report.features import LatentNumbers
from curation.report.pictures import Wanted

_LARGE_PX: Final = 256
_SMALL_PX: Final = 144
_BUCKETS: Final = 12


def large(sample: ChosenSample) -> Wanted:
    """The thumbnail beside a whole caption."""
    return Wanted(sample.shard, sample.key, _LARGE_PX)


def small(sample: ChosenSample) -> Wanted:
    """The thumbnail in a row of sixteen."""
    return Wanted(sample.shard, sample.key, _SMALL_PX)


def cropped(sample: CroppedSample) -> Wanted:
    """What the trainer sees of a sample."""
    return Wanted(sample.shard, sample.key, _SMALL_PX, sample)


def montage(latents: LatentNumbers) -> tuple[tuple[str, tuple[CroppedSample, ...]], ...]:
    """The buckets of which samples are shown."""
    return tuple((bucket.bucket, bucket.shown) for bucket in latents.crops[:_BUCKETS])


def wanted_pictures(captions: CaptionFindings | None, latents: LatentNumbers | None) -> list[Wanted]:
    """All of them."""
    wanted = []
    if captions:
        wanted += [large(sample) for sample in (*captions.random, *captions.worst.samples())]
        wanted += [small(one.sample) for edge in captions.edges for one in (*edge.just_kept, *edge.just_dropped)]
    if latents:
        wanted += [cropped(sample) for _, shown in montage(latents) for sample in shown]
    return wanted
