"""`python -m pipelines.demo_shards`: generated pictures with known truth, as tar shards."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode, StorageError, UserError


def main(arguments: Sequence[str]) -> int:
    """Write the shards; the same arguments give the same bytes."""
    command = parser(
        "demo_shards",
        "Write tar shards of generated pictures with known truth; of webdataset tars the last two pictures are broken.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the tars go")
    command.add_argument("--layout", choices=("webdataset", "sam"), default="webdataset", help="layout of the tars")
    command.add_argument("--shards", type=int, default=3, metavar="N", help="tars (default 3)")
    command.add_argument("--rows", type=int, default=64, metavar="N", help="pictures a tar (default 64)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the pictures (default 0)")
    options = command.parse_args(arguments)
    if options.shards < 1 or options.rows < 4:
        raise UserError("--shards must be at least 1 and --rows at least 4.")

    from curation.demo.pictures import write_sam_shards, write_webdataset_shards

    write = write_sam_shards if options.layout == "sam" else write_webdataset_shards
    try:
        paths = write(Path(options.out), shards=options.shards, rows=options.rows, seed=options.seed)
    except OSError as error:
        raise StorageError(f"{options.out}: cannot be written ({error.strerror}). Give another --out.") from None
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} shards, {options.shards * options.rows} pictures, {size / 1e6:.2f} MB: {paths[0]} ...")
    return ExitCode.OK


if __name__ == "__main__":
    run(main)
