"""Lists of prompts, and where each of their pictures goes so that the benchmark's own tools find it.

    prompts         .txt with one prompt a line, or .jsonl with `prompt`     OUT/00000.png
    T2I-CompBench   color_val.txt ...: one prompt a line                     OUT/color_val/samples/PROMPT_000000.png
    GenEval         evaluation_metadata.jsonl: `prompt`, `tag`, `include`    OUT/00000/samples/0000.png, metadata.jsonl

CompBench's tools tell the prompt from the file's name (up to its first underscore) and order pictures by the number
after the last; GenEval's look up what to detect in the `metadata.jsonl` beside `samples`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.errors import UserError

COMPBENCH_PICTURES: Final = 10
GENEVAL_PICTURES: Final = 4
"""Pictures a prompt in the two benchmarks' own papers."""

_LONGEST_NAME: Final = 255  # bytes of a file's name that file systems take


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to draw. `number` is its place in its list, from which its seed follows."""

    file: str  # relative to the output directory
    prompt: str
    number: int


@dataclass(frozen=True, slots=True)
class PromptList:
    """What to draw, and small files that go beside the pictures."""

    name: str
    pictures: tuple[Picture, ...]
    beside: tuple[tuple[str, str], ...] = ()  # (relative path, text)


def plain_list(path: Path, per_prompt: int) -> PromptList:
    """Prompts of a .txt or .jsonl file. Raises `UserError` if it is none."""
    prompts = read_prompts(path)
    digits = max(5, len(str(len(prompts) - 1)))
    pictures = [
        Picture(f"{i:0{digits}}{f'_{k}' if per_prompt > 1 else ''}.png", prompt, number)
        for number, (i, k, prompt) in enumerate(_repeated(prompts, per_prompt))
    ]
    return PromptList(path.name, tuple(pictures))


def compbench_list(paths: Sequence[Path], per_prompt: int = COMPBENCH_PICTURES) -> PromptList:
    """The prompts of T2I-CompBench's text files, each file a category with a folder of its own.

    Raises `UserError` for files that cannot be read, two of one name, and prompts that cannot be told from a file name.
    """
    if len({path.stem for path in paths}) < len(paths):
        raise UserError("two files of one name would go into one folder. Give each category once.")
    pictures = []
    for path in paths:
        prompts = [line.split("\t")[0].strip() for line in _lines(path)]
        for number, (_, _, prompt) in enumerate(_repeated(prompts, per_prompt)):
            name = f"{prompt}_{number:06}.png"
            if "/" in prompt or "_" in prompt or len(name.encode()) > _LONGEST_NAME:
                raise UserError(
                    f"{path}: the prompt {prompt!r} cannot be a file's name that CompBench's tools read it from (no / "
                    f"and no _, at most {_LONGEST_NAME} bytes). Take it out."
                )
            pictures.append(Picture(f"{path.stem}/samples/{name}", prompt, number))
    return PromptList("T2I-CompBench " + ", ".join(path.stem for path in paths), tuple(pictures))


def geneval_list(path: Path, per_prompt: int = GENEVAL_PICTURES) -> PromptList:
    """The prompts of GenEval's metadata. Raises `UserError` if it is none."""
    records = read_records(path, ("prompt", "tag", "include"))
    prompts = [str(record["prompt"]) for record in records]
    pictures = [
        Picture(f"{i:05}/samples/{k:04}.png", prompt, number)
        for number, (i, k, prompt) in enumerate(_repeated(prompts, per_prompt))
    ]
    beside = [(f"{i:05}/metadata.jsonl", json.dumps(record) + "\n") for i, record in enumerate(records)]
    return PromptList("GenEval", tuple(pictures), tuple(beside))


def read_prompts(path: Path) -> list[str]:
    """The prompts of a .txt or .jsonl file. Raises `UserError` if it is none or has none."""
    if path.suffix == ".jsonl":
        return [str(record["prompt"]) for record in read_records(path, ("prompt",))]
    return [line.strip() for line in _lines(path)]


def _repeated(prompts: Sequence[str], times: int) -> Iterator[tuple[int, int, str]]:
    return ((i, k, prompt) for i, prompt in enumerate(prompts) for k in range(times))


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise UserError(f"{path}: cannot be read ({reason}). Give a UTF-8 text file.") from None
    if not lines:
        raise UserError(f"{path}: no prompt in it. Write one a line.")
    return lines


def read_records(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, each with `keys`. Raises `UserError`, naming the line, if one has not."""
    records = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: no JSON ({error}). Give one object a line.") from None
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise UserError(f"{path}, line {number}: lacks {', '.join(missing)}. Is it a list of another kind?")
        records.append(record)
    return records
