"""`python -m pipelines.demo_shards`: generated pictures with known truth, as tar shards."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode, StorageError, UserError


def main(arguments: Sequence[str]) -> int:
    """Write the shards; the same arguments give the same bytes."""
    command = parser(
        "demo_shards",
        "Write tar shards of generated pictures, and beside each what is true of them; see docs/world.md.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the tars go")
    command.add_argument(
        "--layout",
        choices=("laion", "sam", "imagenet"),
        default="laion",
        help="laion: as img2dataset writes it, with alt texts (--source webdataset); sam: as SA-1B; imagenet: one "
        "thing a picture, with its class (default laion)",
    )
    command.add_argument("--shards", type=int, default=3, metavar="N", help="tars (default 3)")
    command.add_argument("--rows", type=int, default=64, metavar="N", help="pictures a tar (default 64)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the pictures (default 0)")
    command.add_argument(
        "--split",
        choices=("train", "test", "novel"),
        default="train",
        help="train; test: other pictures of the same kind; novel: the main thing in a colour that training never "
        "shows it in (default train)",
    )
    command.add_argument(
        "--broken",
        type=int,
        default=2,
        metavar="N",
        help="damaged pictures at the end of each tar (default 2)",
    )
    command.add_argument(
        "--things", type=int, choices=(1, 2, 3), help="layout laion: so many things in each picture (default 1 to 3)"
    )
    command.add_argument("--square", action="store_true", help="squares alone (default: seven sizes of several shapes)")
    options = command.parse_args(arguments)
    if options.shards < 1 or options.rows < 1 or not 0 <= options.broken <= options.rows:
        raise UserError("--shards and --rows must be at least 1, and --broken between 0 and --rows.")
    if options.seed < 0:
        raise UserError("--seed must not be negative.")
    if options.things is not None and options.layout != "laion":
        raise UserError(f"--things is for layout laion alone, not {options.layout}. Leave it out.")

    from curation.scenes.scene import Split
    from curation.scenes.shards import write_imagenet_shards, write_laion_shards, write_sam_shards

    writers: dict[str, Callable[..., list[Path]]] = {
        "laion": functools.partial(write_laion_shards, things=options.things),
        "sam": write_sam_shards,
        "imagenet": write_imagenet_shards,
    }
    split = Split(options.split)
    try:
        paths = writers[options.layout](
            Path(options.out),
            shards=options.shards,
            rows=options.rows,
            seed=options.seed,
            split=split,
            broken=options.broken,
            square=options.square,
        )
    except OSError as error:
        raise StorageError(f"{options.out}: cannot be written ({error.strerror}). Give another --out.") from None
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} shards, {options.shards * options.rows} pictures, {size / 1e6:.2f} MB: {paths[0]} ...")
    return ExitCode.OK


if __name__ == "__main__":
    run(main)
