"""The arguments of commands that read pictures, and what they come to."""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curation.execution.plan import ShardPlan
    from curation.images.decode import DecodePolicy
    from curation.shards.target import Target
    from curation.sources.base import Source
    from schemas.selection import Selection


def add_image_arguments(command: argparse.ArgumentParser, what: str) -> None:
    """`--shards`, `--source`, `--out` and the limits of the decode policy. `what` names the dataset that comes out."""
    group = command.add_argument_group("what is read and written")
    group.add_argument(
        "--shards",
        nargs="+",
        required=True,
        metavar="PATTERN",
        help="tar files or folders: paths, globs, {000..127}, fsspec URLs",
    )
    group.add_argument(
        "--source",
        required=True,
        metavar="NAME",
        help="layout: sam, sam-masks, imagenet, journeydb, webdataset, folder",
    )
    group.add_argument("--out", required=True, metavar="DIR", help=f"the {what} dataset, new or to go on with")
    add_select_argument(group)
    add_policy_arguments(group)


def add_policy_arguments(group: "argparse._ArgumentGroup") -> None:
    """The limits of the decode policy. Without one of these, the policy's own holds."""
    group.add_argument("--min-side", type=int, metavar="PX", help="reject pictures with a shorter side (default 32)")
    group.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="reject pictures with more pixels, before decoding them (default 100000000)",
    )
    group.add_argument(
        "--max-aspect",
        type=float,
        metavar="RATIO",
        help="reject pictures whose longer side is more than so many times the shorter (default 10)",
    )


def add_select_argument(group: "argparse._ArgumentGroup") -> None:
    """`--select`."""
    group.add_argument("--select", metavar="FILE", help="take only the samples of this selection (pipelines.select)")


def selection_of(options: argparse.Namespace) -> "Selection | None":
    """The selection that `--select` names, if it does. Raises `UserError` if it cannot be used."""
    from schemas.selection import read_selection

    return read_selection(options.select) if options.select else None


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """Checked inputs of an image job."""

    source: "Source"
    shards: tuple[str, ...]
    target: "Target"
    policy: "DecodePolicy"
    unit_rows: int
    scan: bool
    selection: "Selection | None"

    @property
    def names(self) -> list[str]:
        """The names of the shards."""
        from curation.shards.urls import shard_name

        return [shard_name(url) for url in self.shards]

    def plans(self) -> "Iterator[ShardPlan]":
        """The units of the shards, lazily. Raises `UserError` if the selection takes nothing of them."""
        from curation.execution.plan import plan_images, plan_selected

        plans = plan_images(self.target, self.shards, self.source.container, self.unit_rows, scan=self.scan)
        return plans if self.selection is None else plan_selected(plans, self.selection, self.names)


def image_inputs(options: argparse.Namespace, default_unit_rows: int) -> ImageInputs:
    """What the parsed arguments mean. Looks at the first block of each shard and writes nothing.

    Raises `UserError` for shards that do not exist or are no tars (or folders), and unknown sources.
    """
    from curation.execution.job import unit_rows_of
    from curation.images.decode import DecodePolicy
    from curation.shards.container import check_container
    from curation.shards.target import Target
    from curation.shards.urls import expand_shards
    from curation.sources.table import source_named

    source = source_named(options.source)
    shards = expand_shards(options.shards)
    for shard in shards:
        check_container(shard, source.container)
    limits = {name: getattr(options, name) for name in ("min_side", "max_pixels", "max_aspect")}
    policy = dataclasses.replace(DecodePolicy(), **{name: v for name, v in limits.items() if v is not None})
    unit_rows = unit_rows_of(options.out, options.unit_rows, default_unit_rows)
    selection = selection_of(options)
    return ImageInputs(source, shards, Target(options.out), policy, unit_rows, not options.dry_run, selection)
