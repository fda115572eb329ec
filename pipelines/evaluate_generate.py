"""`pipelines.evaluate generate`: the pictures of a prompt list, by one process or by torchrun."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.progress_line import ProgressLine
from pipelines.sampling_arguments import (
    add_device_argument,
    add_sampling_arguments,
    add_weights_arguments,
    device_of,
    positive,
    weights_file,
)
from schemas.errors import ExitCode

if TYPE_CHECKING:
    from training.evaluation.generation import Models
    from training.evaluation.prompt_lists import PromptList


def add(parts: "argparse._SubParsersAction[Any]") -> None:
    """The command's arguments."""
    about = "Draw the pictures of a prompt list. The same command goes on where it was, at any number of processes."
    command = parts.add_parser("generate", help="draw the pictures of a prompt list", description=about)
    add_weights_arguments(command)
    lists = command.add_mutually_exclusive_group(required=True)
    lists.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line; or .jsonl with `prompt`")
    lists.add_argument(
        "--compbench", type=Path, nargs="+", metavar="FILE", help="T2I-CompBench's color_val.txt, shape_val.txt, ..."
    )
    lists.add_argument("--geneval", type=Path, metavar="FILE", help="GenEval's evaluation_metadata.jsonl")
    command.add_argument(
        "--per-prompt", type=positive, metavar="N", help="pictures a prompt (default 1; CompBench 10, GenEval 4)"
    )
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the pictures go")
    add_sampling_arguments(command)
    add_device_argument(command)
    command.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Draw this process's share of what is missing."""
    from training.diffusion.samplers import DEFAULT_STEPS
    from training.evaluation.generation import draw_pictures, missing, open_folder, record_of, share_of
    from training.sampling.drawing import DrawSettings, TextToImage, picture_size

    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    prompts = _list(options)
    weights = weights_file(options)
    device = device_of(options.device, int(os.environ.get("LOCAL_RANK", 0)))
    artist = TextToImage(weights, options.t5, options.vae, device)
    size = picture_size(options.size, artist.model.config, artist.decoder.cell)
    settings = DrawSettings(options.sampler, options.steps or DEFAULT_STEPS[options.sampler], options.guidance, *size)
    artist.check(settings)
    models = _models(options, weights, artist.metadata, "bf16" if device.type == "cuda" else "fp32")
    open_folder(options.out, prompts, record_of(prompts, options.seed, settings, models))

    mine = share_of(prompts.pictures, rank, processes)
    due = missing(options.out, mine)
    shared = f" (process {rank + 1} of {processes})" if processes > 1 else ""
    if not due:
        print(f"nothing to do: all {len(mine):,} pictures are in {options.out}{shared}")
        return ExitCode.OK
    progress = ProgressLine(f"pictures{shared}", len(due))
    for count, cut in draw_pictures(artist, due, options.out, options.seed, settings, options.batch):
        progress.add(count)
        for prompt in cut:
            limit = artist.model.config.text_tokens
            print(f"warning: only the first {limit} tokens are used of: {prompt}", file=sys.stderr)
    print(f"{len(due):,} pictures of {prompts.name} drawn, {len(mine) - len(due):,} were there: {options.out}{shared}")
    return ExitCode.OK


def _list(options: argparse.Namespace) -> "PromptList":
    from training.evaluation.prompt_lists import (
        COMPBENCH_PICTURES,
        GENEVAL_PICTURES,
        compbench_list,
        geneval_list,
        plain_list,
    )

    if options.compbench:
        return compbench_list(options.compbench, options.per_prompt or COMPBENCH_PICTURES)
    if options.geneval:
        return geneval_list(options.geneval, options.per_prompt or GENEVAL_PICTURES)
    return plain_list(options.prompts, options.per_prompt or 1)


def _models(options: argparse.Namespace, weights: Path, metadata: dict[str, str], precision: str) -> "Models":
    from training.checkpoints.folder import file_digest
    from training.evaluation.digests import directory_digest
    from training.evaluation.generation import Models

    return Models(
        weights=file_digest(weights),
        kind=metadata["kind"],
        images_seen=metadata["images_seen"],
        t5=directory_digest(Path(options.t5)),
        vae=directory_digest(Path(options.vae)),
        precision=precision,
    )
