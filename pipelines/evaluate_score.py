"""`pipelines.evaluate score`: Fréchet distance and CLIP score of a folder of pictures."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.progress_line import ProgressLine
from pipelines.sampling_arguments import add_device_argument, device_of, positive, seed
from pipelines.written import require_file, write_text
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from training.evaluation.clip import ClipScore
    from training.evaluation.features import Features
    from training.evaluation.pictures import Preparation
    from training.evaluation.results import FrechetScore
    from training.evaluation.statistics import Moments, Space

RESIZES = ("clean", "legacy", "none")  # of training.evaluation.pictures, which is slow to import


def add(parts: "argparse._SubParsersAction[Any]") -> None:
    """The command's arguments."""
    about = "Score a folder of pictures: Fréchet distance from a reference, CLIP score, or both."
    command = parts.add_parser("score", help="Fréchet distance and CLIP score of pictures", description=about)
    command.add_argument("--samples", type=Path, metavar="DIR", help="the pictures to be judged")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    frechet = command.add_argument_group("Fréchet distance")
    reference = frechet.add_mutually_exclusive_group()
    reference.add_argument("--reference", type=Path, metavar="DIR", help="real pictures")
    reference.add_argument("--reference-statistics", type=Path, metavar="FILE", help="of --save-statistics (.npz)")
    frechet.add_argument(
        "--reference-list", type=Path, metavar="FILE", help="take only the `file_name`s in this .jsonl of --reference"
    )
    frechet.add_argument("--save-statistics", type=Path, metavar="FILE", help="keep the reference's statistics (.npz)")
    frechet.add_argument(
        "--features",
        metavar="NETWORK",
        help="TorchScript file (.pt), MODULE:FUNCTION, vae-latents:DIR or vae-encoder:DIR",
    )
    frechet.add_argument(
        "--square", type=positive, metavar="PX", help="first the centre square at this size, on both sides"
    )
    frechet.add_argument(
        "--resize",
        choices=RESIZES,
        help="to the network's input: clean (antialiased bicubic), legacy (bilinear), none (default clean where the "
        "network has an input size, else none)",
    )
    frechet.add_argument("--input", type=positive, metavar="PX", help="the network's input size (Inception: 299)")
    frechet.add_argument("--unbiased", action="store_true", help="also extrapolate to infinitely many samples")
    clip = command.add_argument_group("CLIP score")
    clip.add_argument("--clip", type=Path, metavar="DIR", help="a CLIP model's directory")
    clip.add_argument("--clip-template", default="{prompt}", metavar="TEXT", help="default {prompt}: the prompt itself")
    clip.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one a picture in order (default: what the PNG files say)"
    )
    how = command.add_argument_group("how it runs")
    how.add_argument("--batch", type=positive, default=64, help="pictures at a time (default 64)")
    how.add_argument("--threads", type=positive, default=8, help="threads that read pictures (default 8)")
    how.add_argument("--seed", type=seed, default=0, help="of the subsets of --unbiased (default 0)")
    add_device_argument(how)
    command.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON."""
    from schemas.record import to_json
    from training.evaluation.features import open_features
    from training.evaluation.generation import read_record
    from training.evaluation.pictures import picture_files
    from training.evaluation.results import Scores, require_all, table, versions

    _require_sense(options)
    require_file("--json", options.json)
    require_file("--save-statistics", options.save_statistics)
    device = device_of(options.device)
    features = open_features(options.features, device, options.input or 0) if options.features else None
    if options.samples is None and features is not None:
        _reference(options, features, device)
        print(f"statistics of {options.reference} in {options.save_statistics}")
        return ExitCode.OK
    paths = picture_files(options.samples)
    generation = read_record(options.samples)
    told = list(require_all(generation, len(paths)))
    frechet = clip = None
    if features is not None:
        frechet, warned = _frechet(options, features, paths, device)
        told += warned
    if options.clip:
        clip = _clip(options, paths, device)
    scores = Scores(str(options.samples), len(paths), frechet, clip, generation, tuple(told), versions())
    print(table(scores))
    if options.json:
        write_text(options.json, to_json(scores))
    return ExitCode.OK


def _require_sense(options: argparse.Namespace) -> None:
    against = options.reference or options.reference_statistics
    for wrong, mistake in (
        (
            bool(options.features) != bool(against),
            "a Fréchet distance needs --features and a --reference (or its statistics)",
        ),
        (not options.features and not options.clip, "nothing to measure: give --features and --reference, or --clip"),
        (options.save_statistics and not options.reference, "--save-statistics keeps those of a --reference; give one"),
        (options.reference_list and not options.reference, "--reference-list chooses from a --reference; give one"),
        (options.samples is None and not options.save_statistics, "give --samples, or --save-statistics alone"),
        (options.samples is None and options.clip, "--clip scores --samples; give them"),
    ):
        if wrong:
            raise UserError(f"{mistake}.")


def _preparation(options: argparse.Namespace, features: "Features") -> "Preparation":
    from training.evaluation.pictures import CLEAN, NONE, Preparation

    size = options.input or features.input_px
    resize = options.resize or (CLEAN if size else NONE)
    return Preparation(options.square or 0, resize, 0 if resize == NONE else size)


def _measured(
    options: argparse.Namespace, features: "Features", paths: Sequence[Path], what: str, device: "torch.device"
) -> Iterator["NDArray[np.float32]"]:
    from training.evaluation.features import computed
    from training.evaluation.pictures import batches

    progress = ProgressLine(f"features of {what}", len(paths))
    read = batches(paths, _preparation(options, features), options.batch, options.threads)
    for values in computed(features, read, device, what):
        progress.add(len(values))
        yield values


def _reference(
    options: argparse.Namespace, features: "Features", device: "torch.device"
) -> tuple["Moments", "Space", str]:
    """Statistics of the reference, from its pictures or its file, and what it is called."""
    from training.evaluation.statistics import Space, gather, load_moments, save_moments

    if options.reference_statistics:
        return load_moments(options.reference_statistics)
    paths = _reference_files(options)
    source = options.reference.name + (f" ({options.reference_list.name})" if options.reference_list else "")
    moments = gather(_measured(options, features, paths, "the reference", device))
    space = Space(features.name, features.digest, moments.dim, _preparation(options, features).describe())
    if options.save_statistics:
        save_moments(options.save_statistics, moments, space, source)
    return moments, space, source


def _reference_files(options: argparse.Namespace) -> list[Path]:
    from training.evaluation.pictures import picture_files
    from training.evaluation.prompt_lists import read_records

    if not options.reference_list:
        return picture_files(options.reference)
    names = [str(record["file_name"]) for record in read_records(options.reference_list, ("file_name",))]
    paths = [options.reference / name for name in names]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise UserError(
            f"{absent[0]} and {len(absent) - 1:,} more of --reference-list are not there. Check the folder."
        )
    return paths


def _frechet(
    options: argparse.Namespace, features: "Features", paths: Sequence[Path], device: "torch.device"
) -> tuple["FrechetScore", list[str]]:
    import numpy as np

    from training.evaluation.features import label
    from training.evaluation.frechet import extrapolated, frechet_distance, warnings_for
    from training.evaluation.results import FrechetScore, Pictures
    from training.evaluation.statistics import Moments, Space, gather, moments_digest

    reference, there, source = _reference(options, features, device)
    preparation = _preparation(options, features).describe()
    if options.reference_statistics:  # before the long work, not after it
        Space(features.name, features.digest, there.dim, preparation).require_same(
            there, str(options.samples), str(options.reference_statistics)
        )
    measured = _measured(options, features, paths, "the samples", device)
    kept = np.concatenate(list(measured)) if options.unbiased else None
    samples = Moments.of(kept) if kept is not None else gather(measured)
    space = Space(features.name, features.digest, samples.dim, preparation)
    space.require_same(there, str(options.samples), str(options.reference_statistics or options.reference))
    found = frechet_distance(samples, reference)
    score = FrechetScore(
        name=label(features, samples.dim),
        distance=found.distance,
        means=found.means,
        covariances=found.covariances,
        samples=Pictures(options.samples.name, samples.count, moments_digest(samples)),
        reference=Pictures(source, reference.count, moments_digest(reference)),
        space=space,
        unbiased=extrapolated(kept, reference, options.seed) if kept is not None else None,
    )
    warned = warnings_for(samples.count, samples.dim, "samples")
    return score, warned + warnings_for(reference.count, reference.dim, "reference")


def _clip(options: argparse.Namespace, paths: Sequence[Path], device: "torch.device") -> "ClipScore":
    from training.evaluation.clip import Clip, clip_score
    from training.evaluation.generation import prompt_in
    from training.evaluation.prompt_lists import read_prompts

    if options.prompts:
        prompts = read_prompts(options.prompts)
    else:
        said = [(path, prompt_in(path)) for path in paths]
        silent = [path for path, prompt in said if prompt is None]
        if silent:
            raise UserError(
                f"{silent[0]}: does not say its prompt, as ours do. Give --prompts, one a picture in order."
            )
        prompts = [prompt for _, prompt in said if prompt is not None]
    return clip_score(Clip(options.clip, device), paths, prompts, options.clip_template, options.batch)
