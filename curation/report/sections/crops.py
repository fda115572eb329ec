"""The bucket montage: pictures as the trainer will crop them."""

from curation.report.collect import Report
from curation.report.crops import CroppedSample
from curation.report.document import Block, Heading, Row, Section, Strip, Table, Text, Tile
from curation.report.formats import number, share
from curation.report.sections.samples import tile, without_pictures
from curation.report.sections.sides import Side, sides
from curation.report.wanted import cropped, montage


def crops_section(report: Report) -> Section:
    """A table of the buckets, and samples of the most frequent ones."""
    every = [side for side in sides(report) if side.corpus.latents and side.corpus.latents.crops]
    blocks: list[Block] = []
    for side in every:
        blocks += [Heading(side.prefix)] if side.prefix else []
        blocks += [_table(side), *without_pictures(side.corpus.pictures is not None), *_montage(side)]
    if not every:
        blocks.append(Text("Not in this report: it was made without --latents, whose index holds the crops.", "absent"))
    return Section(
        "crops",
        "As the trainer sees them",
        "Look for heads, feet and texts that the crop cuts off, and for pictures that were enlarged: the crop boxes of "
        "the latents are applied here to the source pictures.",
        tuple(blocks),
    )


def _table(side: Side) -> Table:
    assert side.corpus.latents is not None
    crops = side.corpus.latents.crops
    total = sum(bucket.samples for bucket in crops)
    rows = [
        Row(
            bucket.bucket,
            (
                *(number(bucket.samples), share(bucket.samples, total), share(bucket.left_out, 1)),
                *(number(bucket.enlarged), share(bucket.enlarged, bucket.samples)),
            ),
        )
        for bucket in crops
    ]
    header = ("bucket (height × width, px)", "samples", "share", "mean area cut off", "enlarged", "share enlarged")
    return Table(header, tuple(rows))


def _montage(side: Side) -> list[Block]:
    latents = side.corpus.latents
    if latents is None or side.corpus.pictures is None:
        return []
    shown = montage(latents)
    strips: list[Block] = [
        Strip(f"{bucket}, {number(len(samples))} of {number(latents.buckets[bucket])}", _tiles(side, samples))
        for bucket, samples in shown
    ]
    rest = len(latents.crops) - len(shown)
    return [*strips, *([Text(f"and {number(rest)} rarer buckets.", "note")] if rest else [])]


def _tiles(side: Side, samples: tuple[CroppedSample, ...]) -> tuple[Tile, ...]:
    return tuple(tile(side.corpus, cropped(one), f"{share(one.left_out, 1)} cut off", _told(one)) for one in samples)


def _told(one: CroppedSample) -> str:
    grown = (
        f", enlarged to {one.resized_height}×{one.resized_width}" if one.resized_height > one.original_height else ""
    )
    return f"of {one.original_height}×{one.original_width} px{grown}{', mirrored' if one.flipped else ''}"
