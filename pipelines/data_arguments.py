"""What to train on: the arguments that `train` and `inspect` share, and the file that describes a mixture."""

import argparse
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

from schemas.errors import UserError
from training.data.mixture import Share, Source
from training.data.policy import TOKENS_COUNTED, Policy

_GLOBAL_BATCH: Final = 256  # where nobody asks for another
_FLIP: Final = 0.5
_KEYS: Final = ("name", "latents", "latents_flipped", "flip", "text", "weight", "select")

DATA_FILE: Final = """--data FILE, a mixture in TOML; relative paths start at the file's folder:

  [[dataset]]
  name = "sam"
  latents = "sam/latents"
  latents_flipped = "sam/latents-flipped"   # left out: none
  flip = 0.5                                # share of uses that take the flipped latents
  text = ["sam/text", {dir = "sam/text-alt", weight = 0.5}]
  weight = 2                                # uses of each sample an epoch; left out: 1
  select = "sam.parquet"                    # left out: all samples
"""


def add_data_arguments(command: argparse.ArgumentParser) -> None:
    """What is read, and how it is put together."""
    data = command.add_argument_group("data")
    data.add_argument("--latents", metavar="DIR", help="latents data set: directory or URL")
    data.add_argument("--latents-flipped", metavar="DIR", default="", help="latents of the same pictures, flipped")
    data.add_argument(
        "--flip", type=float, metavar="SHARE", help=f"share of uses that take the flipped latents (default {_FLIP})"
    )
    data.add_argument(
        "--text",
        metavar="DIR[=WEIGHT]",
        action="append",
        help="text data set of the same images; repeated: caption variants, drawn by weight (default 1 each); "
        "left out where classes are trained on",
    )
    data.add_argument("--select", metavar="FILE", default="", help="train on these samples alone, see pipelines.select")
    data.add_argument("--data", metavar="FILE", default="", help="mixture of datasets, instead of the five above")
    data.add_argument(
        "--max-unmatched",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of samples that may lack latents or text (default 0.0)",
    )
    data.add_argument(
        "--manifest-cache",
        metavar="DIR",
        default=str(_default_cache()),
        help="directory on a disk of this machine where joined data sets are kept (default: among temporary files)",
    )


def add_plan_arguments(command: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """How samples are put together; the group of these arguments."""
    plan = command.add_argument_group(title)
    plan.add_argument(
        "--global-batch",
        type=int,
        metavar="INT",
        help=f"samples a step, over all processes (default {_GLOBAL_BATCH}, or the stage's)",
    )
    plan.add_argument(
        "--tokens-per-batch", type=int, metavar="INT", help="instead: as many samples as keep within so many tokens"
    )
    plan.add_argument(
        "--tokens-counted",
        choices=TOKENS_COUNTED,
        default="all",
        help="all: true tokens of latents and text; text: of text alone (default all)",
    )
    plan.add_argument(
        "--shuffle-window",
        type=int,
        default=0,
        metavar="INT",
        help="shuffle within windows of so many samples, so that reads stay local; 0: all the data (default 0)",
    )
    plan.add_argument(
        "--caption-drop",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of captions replaced by the empty one, or of classes by the null class, for guidance (default 0.1)",
    )
    plan.add_argument("--seed", type=int, default=0, metavar="INT", help="of everything random (default 0)")
    return plan


def mixture_of(options: argparse.Namespace) -> tuple[tuple[Source, ...], tuple[Share, ...]]:
    """The datasets that the options name, and how each is used."""
    if options.data:
        names = ("latents", "latents_flipped", "flip", "text", "select")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, "")]
        if given:
            raise UserError(f"--data {options.data} says what to train on; leave out {', '.join(given)}.")
        return _read_mixture(Path(options.data))
    if not options.latents:
        raise UserError("no --latents given. Name the data set, or a mixture with --data.")
    text = [_weighted(value) for value in options.text or ()]
    source = Source("", options.latents, tuple(url for url, _ in text), options.latents_flipped, options.select)
    if options.flip is not None and not options.latents_flipped:
        raise UserError("--flip needs --latents-flipped. Make them with pipelines.latents --flip.")
    flip = 0.0 if not options.latents_flipped else _FLIP if options.flip is None else options.flip
    return (source,), (Share("", 1.0, tuple(weight for _, weight in text), flip),)


def policy_of(
    options: argparse.Namespace, shares: tuple[Share, ...], latent_patch: int, global_batch: int = _GLOBAL_BATCH
) -> Policy:
    """How the options put samples together; `latent_patch` is the model's, `global_batch` holds if none is given."""
    if options.global_batch is not None and options.tokens_per_batch is not None:
        raise UserError("--global-batch and --tokens-per-batch are two ways to say how large a batch is. Give one.")
    if options.tokens_per_batch is not None and options.tokens_per_batch < 1:
        raise UserError(f"--tokens-per-batch {options.tokens_per_batch} is too small. Use at least 1.")
    by_tokens = options.tokens_per_batch is not None
    return Policy(
        global_batch=0 if by_tokens else global_batch if options.global_batch is None else options.global_batch,
        tokens_per_batch=options.tokens_per_batch if by_tokens else 0,
        tokens_counted=options.tokens_counted,
        latent_patch=latent_patch,
        shuffle_window=options.shuffle_window,
        caption_drop=options.caption_drop,
        datasets=shares,
    )


def _default_cache() -> Path:
    """Where temporary files go: that is a disk of this machine, which a home directory need not be."""
    return Path(tempfile.gettempdir()) / f"latentmill-{os.getuid()}" / "manifests"


def _weighted(value: str) -> tuple[str, float]:
    """DIR or DIR=WEIGHT; what follows the last `=` is a weight if it is a number."""
    url, _, weight = value.rpartition("=")
    try:
        return (url, float(weight)) if url else (value, 1.0)
    except ValueError:
        return value, 1.0


def _read_mixture(path: Path) -> tuple[tuple[Source, ...], tuple[Share, ...]]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--data {path}: cannot be read ({error.strerror}). Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--data {path}: not valid TOML ({error}). Mend it, see --help.") from None
    tables = content.pop("dataset", [])
    _refuse_unknown(path, "", content, ("[[dataset]]",))
    if not isinstance(tables, list) or not tables:
        raise UserError(f"--data {path}: names no [[dataset]]. See --help for what it must hold.")
    pairs = [_read_dataset(path, number, table) for number, table in enumerate(tables)]
    names = [source.name for source, _ in pairs]
    if len(set(names)) < len(names):
        raise UserError(f"--data {path}: two datasets have one name among {', '.join(names)}. Name them apart.")
    return tuple(source for source, _ in pairs), tuple(share for _, share in pairs)


def _read_dataset(path: Path, number: int, table: Any) -> tuple[Source, Share]:
    where = f"dataset {table.get('name', number + 1)}: " if isinstance(table, dict) else ""
    _expect(path, where, isinstance(table, dict), "[[dataset]] is no table")
    _refuse_unknown(path, where, table, _KEYS)
    for name in ("name", "latents", "latents_flipped", "select"):
        _expect(path, where, isinstance(table.get(name, ""), str), f"{name} is no text in quotes")
    for name in ("flip", "weight"):
        _expect(path, where, _is_number(table.get(name, 0)), f"{name} is no number")
    _expect(path, where, bool(table.get("latents")), "latents is missing")
    text = table.get("text", [])
    variants = [_read_variant(path, where, item) for item in (text if isinstance(text, list) else [text])]
    flipped = table.get("latents_flipped", "")
    _expect(path, where, bool(flipped) or "flip" not in table, "flip needs latents_flipped")
    name = table.get("name", f"dataset-{number + 1}")
    source = Source(
        name=name,
        latents=_located(path, table["latents"]),
        text=tuple(_located(path, url) for url, _ in variants),
        flipped=_located(path, flipped),
        select=_located(path, table.get("select", "")),
    )
    captions = tuple(weight for _, weight in variants)
    return source, Share(
        name, float(table.get("weight", 1)), captions, float(table.get("flip", _FLIP if flipped else 0))
    )


def _read_variant(path: Path, where: str, item: Any) -> tuple[str, float]:
    """A caption variant: a directory, or a table of dir and weight."""
    table = {"dir": item} if isinstance(item, str) else item
    _expect(path, where, isinstance(table, dict), "text is neither a directory nor a list of them")
    _refuse_unknown(path, f"{where}text: ", table, ("dir", "weight"))
    _expect(path, where, isinstance(table.get("dir"), str), "text names no dir")
    _expect(path, where, _is_number(table.get("weight", 1)), "the weight of text is no number")
    return table["dir"], float(table.get("weight", 1))


def _located(path: Path, url: str) -> str:
    return url if not url or "://" in url or os.path.isabs(url) else str(path.parent / url)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expect(path: Path, where: str, holds: bool, mistake: str) -> None:
    if not holds:
        raise UserError(f"--data {path}: {where}{mistake}. See --help for what it must hold.")


def _refuse_unknown(path: Path, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(table) - set(known))
    _expect(path, where, not unknown, f"unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
