"""The pictures of a prompt list, drawn by any number of processes that may be stopped and started at will.

A picture's file appears whole or not at all, and a picture depends on its prompt and seed alone, so what is there is
never drawn again. Processes deal the list among themselves by their rank and never wait for each other: none can time
out on another, and the folder is complete when all have ended.
"""

import contextlib
import io
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from schemas.dataset import DATASET_FILE
from schemas.errors import StorageError, UserError
from schemas.record import canonical_json, from_json, to_json
from training.evaluation.prompt_lists import Picture, PromptList
from training.sampling.drawing import DrawSettings

RECORD: Final = "generation.json"
PROMPT_FIELD: Final = "prompt"
_ASIDE: Final = ".partial"
_VERSIONS: Final = ("torch", "diffusers", "transformers", "pillow")


class Artist(Protocol):
    """What draws: a `TextToImage`, or anything called like one."""

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: DrawSettings
    ) -> tuple[NDArray[np.uint8], tuple[bool, ...]]:
        """As `TextToImage.draw`."""


@dataclass(frozen=True, slots=True)
class Models:
    """What drew the pictures."""

    weights: str  # xxh3_128 of the file
    kind: str  # ema or raw
    images_seen: str
    t5: str  # digest of the directory
    vae: str
    precision: str


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """`generation.json`: all that decides the pictures of a folder."""

    prompts: str  # the list's name
    prompts_digest: str  # xxh3_128 of file names and prompts
    pictures: int
    seed: int  # of picture 0 of a list; picture number i has seed + i
    settings: DrawSettings
    models: Models
    versions: dict[str, str]

    def differences(self, other: "GenerationRecord") -> list[str]:
        """One phrase for each value that `other` has otherwise; versions apart."""
        mine, theirs = (_flat(asdict(one)) for one in (self, other))
        return [f"{key} was {mine[key]}, now {theirs[key]}" for key in mine if mine[key] != theirs[key]]


def record_of(prompts: PromptList, seed: int, settings: DrawSettings, models: Models) -> GenerationRecord:
    """The record of drawing `prompts` now."""
    named = canonical_json([[picture.file, picture.prompt] for picture in prompts.pictures])
    digest = xxhash.xxh3_128_hexdigest(named.encode())
    versions = {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}
    return GenerationRecord(prompts.name, digest, len(prompts.pictures), seed, settings, models, versions)


def open_folder(out: Path, prompts: PromptList, record: GenerationRecord) -> None:
    """Take `out` for these pictures, or go on there.

    Raises `UserError` if other pictures or another data set are there, `StorageError` where the disk refuses.
    """
    if (out / DATASET_FILE).exists():
        raise UserError(f"{out}: a data set lies there. Choose another --out.")
    before = read_record(out)
    differences = before.differences(record) if before else []
    if differences:
        raise UserError(f"{out} was begun otherwise: {'; '.join(differences)}. Choose another --out, or delete it.")
    if before is None:
        # Other processes of the same command may be at it too, and are known by what they leave.
        if out.is_dir() and any(not path.name.endswith(_ASIDE) for path in out.iterdir()) and read_record(out) is None:
            raise UserError(f"{out}: holds other files and no {RECORD}. Choose another --out.")
        _write(out / RECORD, to_json(record).encode())
    for name, text in prompts.beside:
        if not (out / name).exists():
            _write(out / name, text.encode())


def read_record(folder: Path) -> GenerationRecord | None:
    """What a folder of pictures was drawn with, if it says so."""
    path = folder / RECORD
    return from_json(GenerationRecord, path.read_bytes(), str(path)) if path.is_file() else None


def share_of(pictures: Sequence[Picture], rank: int, processes: int) -> list[Picture]:
    """What process `rank` draws of a whole list, drawn already or not: every `processes`-th picture."""
    return list(pictures[rank::processes])


def missing(out: Path, pictures: Sequence[Picture]) -> list[Picture]:
    """Those of `pictures` that are not there."""
    return [picture for picture in pictures if not (out / picture.file).exists()]


def draw_pictures(
    artist: Artist, pictures: Sequence[Picture], out: Path, seed: int, settings: DrawSettings, batch: int
) -> Iterator[tuple[int, list[str]]]:
    """Draw into `out`, `batch` at a time; after each, how many were written and which prompts were cut short."""
    for start in range(0, len(pictures), batch):
        chosen = pictures[start : start + batch]
        prompts, seeds = [one.prompt for one in chosen], [seed + one.number for one in chosen]
        drawn, truncated = artist.draw(prompts, seeds, settings)
        for one, pixels in zip(chosen, drawn, strict=True):
            _write(out / one.file, _png(pixels, one.prompt, seed + one.number, settings))
        yield len(chosen), [prompt for prompt, cut in zip(prompts, truncated, strict=True) if cut]


def prompt_in(path: Path) -> str | None:
    """The prompt that a picture's file says it was drawn from."""
    try:
        with Image.open(path) as image:
            return getattr(image, "text", {}).get(PROMPT_FIELD)
    except (OSError, ValueError, SyntaxError):
        return None


def _png(pixels: NDArray[np.uint8], prompt: str, seed: int, settings: DrawSettings) -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_itxt(PROMPT_FIELD, prompt)
    about.add_text("seed", str(seed))
    for name in ("sampler", "steps", "guidance"):
        about.add_text(name, str(getattr(settings, name)))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=about)
    return file.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also where several processes write the same."""
    aside = path.with_name(f".{os.getpid()}{_ASIDE}")  # short: the name itself may be as long as the disk allows
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a place that is no directory
            aside.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror}). Free space, then run it again.") from None


def _flat(values: dict[str, object]) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in values.items():
        if name == "versions":
            continue
        out |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return out
