"""What latents and text embeddings weigh."""

from collections.abc import Sequence

from curation.report.charts.bars import Bar, Group, bars
from curation.report.collect import Report
from curation.report.document import Block, Figure, Figures, Row, Section, Table, Text
from curation.report.features import RELEASED_LATENT_BYTES, RELEASED_TEXT_BYTES, Volume
from curation.report.formats import number, share, size
from curation.report.sections.sides import Side, sides

_NOTE = (
    "Bytes a sample is the mean of the .npy members' own bytes; on disk adds the tars' headers. The released format is "
    "PixArt-α's: latents of 256 px as fp32 mean and standard deviation, text as 120 padded T5-XXL embeddings in fp32 "
    "with a mask. Other sizes of picture or encoder weigh otherwise."
)


def features_section(report: Report) -> Section:
    """The table, then bars beside the released format."""
    every = [side for side in sides(report) if side.corpus.latents or side.corpus.text]
    blocks: list[Block] = []
    if every:
        blocks += [_table(every), Text(_NOTE, "note"), Figures(tuple(_figures(every)))]
        for side in every:
            latents = side.corpus.latents
            if latents:
                told = (
                    f"{number(latents.labelled)} latents carry a class label, {number(latents.flipped)} are mirrored."
                )
                blocks.append(Text(f"{side.prefix}: {told}" if side.prefix else told, "note"))
    else:
        told = (
            "Not in this report: it was made without --latents and --text, so there is nothing to say about features."
        )
        blocks.append(Text(told, "absent"))
    return Section(
        "features",
        "Features",
        "Look at the bytes a sample before you buy disks: text outweighs latents many times over.",
        tuple(blocks),
    )


def _volumes(every: Sequence[Side]) -> list[tuple[str, str, Volume, int, str]]:
    """Label, feature, volume, bytes of the released format and tone, of everything there is."""
    out = []
    for feature, released in (("latents", RELEASED_LATENT_BYTES), ("text", RELEASED_TEXT_BYTES)):
        for side in every:
            found = side.corpus.latents if feature == "latents" else side.corpus.text
            if found:
                out.append((side.label(feature), feature, found.volume, released, side.tone))
    return out


def _table(every: Sequence[Side]) -> Table:
    rows = []
    for name, _, volume, released, _ in _volumes(every):
        cells = (number(volume.samples), f"{volume.per_sample:,.0f} B", f"{released:,} B")
        more = (share(volume.per_sample, released), size(volume.content_bytes), size(volume.disk_bytes))
        rows.append(Row(name, (*cells, *more)))
    header = ("feature", "samples", "bytes a sample", "released format", "ratio", "content", "on disk")
    return Table(header, tuple(rows))


def _figures(every: Sequence[Side]) -> list[Figure]:
    figures = []
    for feature in ("latents", "text"):
        volumes = [one for one in _volumes(every) if one[1] == feature]
        if not volumes:
            continue
        released = volumes[0][3]
        most = max(released, *(one[2].per_sample for one in volumes))
        rows = [
            Bar(
                "here" if name == feature else name.removesuffix(f" {feature}"),
                v.per_sample / most,
                f"{v.per_sample:,.0f} B",
                tone,
            )
            for name, _, v, _, tone in volumes
        ]
        rows.append(Bar("released format", released / most, f"{released:,} B", "f"))
        heading = f"Bytes a sample: {feature}"
        over = ", ".join(number(volume.samples) for _, _, volume, _, _ in volumes)
        figures.append(Figure(heading, f"N = {over} samples", bars(heading, [Group("", tuple(rows))])))
    return figures
