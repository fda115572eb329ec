"""`pipelines.evaluate scene-prompts` and `scenes`: do pictures of the small world show what their prompts ask for?"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.evaluate_true import true_readings
from pipelines.progress_line import ProgressLine
from pipelines.sampling_arguments import positive, seed
from pipelines.written import require_file, write_text
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from curation.scenes.alignment import AlignmentScore, Reading, Share

_BATCH: Final = 32


def add_prompts(parts: "argparse._SubParsersAction[Any]") -> None:
    """The arguments of `scene-prompts`."""
    about = (
        "Prompts for scenes, one a line with all that is true of it; docs/world.md says what each field means. Either "
        "descriptions of the scenes, or what a captioner said of their pictures: a model that was trained on captions "
        "knows no other words."
    )
    command = parts.add_parser("scene-prompts", help="prompts for scenes of the small world", description=about)
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="prompt list (.jsonl)")
    command.add_argument("--count", type=positive, default=400, metavar="N", help="prompts, at most (default 400)")
    command.add_argument("--split", choices=("train", "test", "novel"), default="test", help="default test")
    command.add_argument("--things", type=int, choices=(1, 2, 3), help="things a scene (default 1 to 3)")
    command.add_argument("--seed", type=seed, default=0, help="of the scenes (default 0)")
    captions = command.add_argument_group(
        "captions in place of descriptions; --split, --things and --seed then say nothing"
    )
    captions.add_argument("--captions", metavar="DIR", help="captions dataset of shards of pipelines.demo_shards")
    captions.add_argument(
        "--truth", type=Path, nargs="+", default=[], metavar="FILE", help="the .truth.jsonl beside the shards"
    )
    command.set_defaults(act=act_prompts)


def act_prompts(options: argparse.Namespace) -> int:
    """Write the list."""
    if bool(options.captions) != bool(options.truth):
        raise UserError("--captions and --truth belong together: give both, or neither for descriptions.")
    told = _captioned(options.captions, options.truth) if options.captions else _described(options)
    lines = [json.dumps({**truth, "prompt": prompt}, ensure_ascii=False) for prompt, truth in told[: options.count]]
    if not lines:
        raise UserError(f"{options.captions}: no usable caption of a picture in --truth. Are they of the same shards?")
    write_text(options.out, "\n".join(lines) + "\n")
    print(f"{len(lines):,} prompts of scenes, with their truth: {options.out}")
    return ExitCode.OK


def _described(options: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """Description and truth of scenes, all squares."""
    from curation.scenes.scene import Split, scene
    from curation.scenes.truth import truth_of

    truths = [
        truth_of(scene(options.seed, number, split=Split(options.split), things=options.things, square=True))
        for number in range(options.count)
    ]
    return [(str(truth["description"]), truth) for truth in truths]


def _captioned(captions: str, files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """Caption and truth of pictures whose caption can be used, in the order of the truth."""
    from schemas.reading import open_dataset
    from schemas.status import USABLE_STATUSES
    from schemas.tables import CAPTIONS
    from training.evaluation.prompt_lists import read_records

    said: dict[str, str] = {}
    for table in open_dataset(captions, "captions").require_whole().tables(CAPTIONS, ["key", "caption", "status"]):
        said |= {row["key"]: row["caption"] for row in table.to_pylist() if row["status"] in USABLE_STATUSES}
    truths = [truth for file in files for truth in read_records(file, ("key", "things", "ground"))]
    return [(said[truth["key"]], truth) for truth in truths if truth["key"] in said]


def add_scenes(parts: "argparse._SubParsersAction[Any]") -> None:
    """The arguments of `scenes`."""
    about = (
        "Read pictures with the detector that comes with the package, and count what of each prompt they show. "
        "Chance is what the same pictures score against the prompts of others; with --true-latents it also says what "
        "the true pictures score, which is the most that a model can be expected to."
    )
    command = parts.add_parser("scenes", help="what of each scene is drawn, counted", description=about)
    command.add_argument("--samples", required=True, type=Path, metavar="DIR", help="pictures, 00000.png and so on")
    command.add_argument(
        "--truth", required=True, type=Path, metavar="FILE", help="list of scene-prompts (.jsonl) that was drawn"
    )
    command.add_argument("--detector", type=Path, metavar="DIR", help="default: the one that comes with the package")
    command.add_argument("--true-latents", metavar="DIR", help="latents dataset of the pictures that the list is of")
    command.add_argument("--vae", metavar="DIR", help="the autoencoder of these latents, which gives them back")
    command.add_argument("--seed", type=seed, default=0, help="of the shuffles that tell chance (default 0)")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    command.set_defaults(act=act_scenes)


def act_scenes(options: argparse.Namespace) -> int:
    """Read, count, print the table, write the JSON."""
    from curation.demo.detector.detector import Detector
    from curation.demo.shipped import DETECTOR
    from curation.scenes.alignment import score_set
    from schemas.record import to_json
    from training.evaluation.pictures import picture_files

    require_file("--json", options.json)
    if bool(options.true_latents) != bool(options.vae):
        raise UserError("--true-latents and --vae belong together: give both, or neither.")
    paths = picture_files(options.samples)
    prompts = [_prompt_of(path) for path in paths]
    asked = _asked(options.truth, paths, prompts)
    detector, seen = Detector(options.detector or DETECTOR), list["Reading"]()
    progress = ProgressLine("pictures read", len(paths))
    for start in range(0, len(paths), _BATCH):
        seen += detector.read([_picture(path) for path in paths[start : start + _BATCH]])
        progress.add(min(_BATCH, len(paths) - start))
    true = true_readings(options.truth, options.true_latents, options.vae, detector) if options.true_latents else ()
    score = score_set(asked, seen, prompts=prompts, true=true, seed=options.seed)
    print(table(score))
    if options.json:
        write_text(options.json, to_json(score))
    return ExitCode.OK


def table(score: "AlignmentScore") -> str:
    """The shares for people, and what chance would give."""
    from curation.scenes.alignment import MEANINGS

    names = "".join(f"{name:>15}" for name, _ in score.columns)
    lines = [f"{'of what was asked for, in per cent':<46}{'drawn':>14}{names}{'N':>8}"]
    for field in fields(score.aligned):
        found: Share = getattr(score.aligned, field.name)
        shown = f"{100 * found.share:.1f} ± {100 * found.error:.1f}"
        beside = "".join(f"{100 * getattr(aligned, field.name).share:>15.1f}" for _, aligned in score.columns)
        lines.append(f"{MEANINGS[field.name]:<46}{shown:>14}{beside}{found.of:>8,}")
    return "\n".join(lines)


def _prompt_of(path: Path) -> int:
    """The number of a picture's prompt, -1 without one: several of a prompt are `NUMBER_K.png`."""
    number = path.stem.partition("_")[0]
    return int(number) if number.isdecimal() else -1


def _asked(truth: Path, paths: Sequence[Path], prompts: Sequence[int]) -> list["Reading"]:
    """What was asked of each picture."""
    from curation.scenes.alignment import asked_in
    from training.evaluation.prompt_lists import read_records

    records = read_records(truth, ("things", "ground"))
    asked = []
    for path, number in zip(paths, prompts, strict=True):
        if not 0 <= number < len(records):
            raise UserError(f"{path}: no picture of {truth}, which has {len(records):,} prompts. Are they of one run?")
        try:
            asked.append(asked_in(records[number]))
        except (KeyError, TypeError) as error:
            raise UserError(f"{truth}, line {number + 1}: no truth of a scene ({error}).") from None
    if len({*prompts}) < 2:
        raise UserError(f"pictures of {len({*prompts})} prompts: chance cannot be told from fewer than two. Draw more.")
    return asked


def _picture(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: no picture that can be read ({error}). Draw it again.") from None
