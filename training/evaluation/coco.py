"""Which 30,000 captions of COCO: a rule that takes a seed and the annotations alone, kept with what it gave."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import xxhash

from schemas.errors import UserError
from training.checkpoints.folder import file_digest

RULE: Final = (
    "pictures in order of xxh64('SEED/image/IMAGE_ID'), ties by id, the first COUNT; of each the caption of least "
    "xxh64('SEED/caption/CAPTION_ID')"
)
"""The hash is of the UTF-8 text with seed 0. It depends on ids alone: neither on the order of the file, nor on a
generator of random numbers that a library may change."""


@dataclass(frozen=True, slots=True)
class CocoPrompt:
    """A line of the prompt list."""

    prompt: str  # the caption, its white space tidied
    image_id: int
    caption_id: int
    file_name: str  # of the picture that a person described so


@dataclass(frozen=True, slots=True)
class CocoList:
    """Prompts, and what they were chosen from."""

    prompts: tuple[CocoPrompt, ...]
    seed: int
    annotations: str  # the file's name
    annotations_digest: str
    pictures: int  # with a caption, in the annotations
    captions: int
    rule: str = RULE


def choose(path: Path, count: int, seed: int) -> CocoList:
    """`count` prompts by `RULE`, one a picture, from a file of captions in COCO's format.

    Raises `UserError` if it is none, or has too few pictures.
    """
    images, annotations = _read(path)
    captions: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for annotation in annotations:
        text = " ".join(str(annotation["caption"]).split())
        if text:
            captions[int(annotation["image_id"])].append((int(annotation["id"]), text))
    unknown = sorted(set(captions) - set(images))
    if unknown:
        raise UserError(f"{path}: captions of pictures that it does not list, such as {unknown[0]}. Download it again.")
    if count > len(captions):
        raise UserError(f"{path}: has {len(captions):,} pictures with captions, not {count:,}. Give a lower --count.")
    chosen = sorted(captions, key=lambda image: (_hash(seed, "image", image), image))[:count]
    prompts = []
    for image in chosen:
        caption, text = min(captions[image], key=lambda one: (_hash(seed, "caption", one[0]), one[0]))
        prompts.append(CocoPrompt(text, image, caption, images[image]))
    total = sum(map(len, captions.values()))
    return CocoList(tuple(prompts), seed, path.name, file_digest(path), len(captions), total)


def to_jsonl(chosen: CocoList) -> str:
    """The prompts, one a line."""
    return "".join(json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in chosen.prompts)


def _hash(seed: int, kind: str, number: int) -> int:
    return xxhash.xxh64_intdigest(f"{seed}/{kind}/{number}".encode())


def _read(path: Path) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """File names by picture id, and the annotations."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        images = {int(image["id"]): str(image["file_name"]) for image in found["images"]}
        annotations = [{key: one[key] for key in ("id", "image_id", "caption")} for one in found["annotations"]]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give COCO's captions_val2014.json.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not COCO's captions ({type(error).__name__}: {error}). Give captions_val2014.json."
        ) from None
    return images, annotations
