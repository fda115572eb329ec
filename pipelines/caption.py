"""`python -m pipelines.caption`: dense captions for the pictures in image shards."""

import argparse
import math
from collections.abc import Sequence

from pipelines.caption_engines import add_engine_arguments, engine_choice
from pipelines.command import add_job_arguments, finish, parser, run
from pipelines.image_arguments import add_image_arguments, image_inputs
from schemas.errors import ExitCode, UserError

_UNIT_ROWS = 1024


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, run the job."""
    options = _parser().parse_args(arguments)

    from curation.captions.engine import Decoding
    from curation.captions.prompts import prompt_named
    from curation.captions.stage import CaptionStage
    from curation.checkpoints import resolve_checkpoint
    from curation.execution.job import Job

    _check_numbers(options)
    inputs = image_inputs(options, _UNIT_ROWS)
    choice = engine_choice(options)
    t5 = options.t5_tokenizer
    stage = CaptionStage(
        target=inputs.target,
        source=inputs.source,
        choice=choice,
        prompt=prompt_named(options.prompt),
        decoding=Decoding(options.max_new_tokens, options.temperature, options.top_p),
        policy=inputs.policy,
        seed=options.seed,
        decode_threads=options.decode_threads,
        t5_tokenizer=resolve_checkpoint(t5, None, needs=("tokenizer.json|spiece.model",)) if t5 else None,
        canary_rows=options.canary,
    )
    if options.estimate:
        from curation.captions.estimate import estimate_captions

        on_gpu = str(options.device).startswith("cuda")
        found = estimate_captions(stage, inputs.shards, inputs.selection, workers=options.workers, on_gpu=on_gpu)
        print("\n".join(found.lines))
        return int(ExitCode.OK)
    job = Job(
        stage, inputs.target, inputs.source.name, inputs.names, inputs.plans(), inputs.unit_rows, inputs.selection
    )
    return int(finish(options, job).exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser("caption", "Caption the pictures in image shards with LLaVA: one row a readable picture.")
    add_image_arguments(command, "captions")
    model = command.add_argument_group("the captioner (all of this changes the captions)")
    model.add_argument("--model", required=True, metavar="ID_OR_DIR", help="a LLaVA checkpoint: hub id or directory")
    model.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    model.add_argument(
        "--prompt", default="sam", metavar="NAME_OR_TEXT", help="sam, laion, or a text with {caption} (default sam)"
    )
    model.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest caption (default 256)")
    model.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    model.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus of the sampling (default 1)")
    model.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampling (default 0)")
    model.add_argument("--t5-tokenizer", metavar="ID_OR_DIR", help="count each caption's T5 tokens with this tokenizer")
    add_engine_arguments(command)
    guard = command.add_argument_group("the canary (changes no caption)")
    guard.add_argument(
        "--canary",
        type=int,
        default=200,
        metavar="N",
        help="stop, and show some, if too many of a worker's first N captions are truncated (20%%), alike (5%%), "
        "refusals (2%%) or otherwise bad, see docs/caption-rules.md; 0: never (default 200; not where the whole job is "
        "smaller, nor where the output holds N captions already)",
    )
    add_job_arguments(
        command,
        unit_rows=_UNIT_ROWS,
        workers_hint="worker processes, each with its own model",
        estimate="caption 128 pictures and say how long the job takes and what it gives",
    )
    command.add_argument(
        "--decode-threads", type=int, default=2, metavar="N", help="threads that decode ahead (default 2)"
    )
    return command


def _check_numbers(options: argparse.Namespace) -> None:
    if options.max_new_tokens < 1:
        raise UserError("--max-new-tokens must be at least 1.")
    if options.decode_threads < 0 or options.canary < 0:
        raise UserError("--decode-threads and --canary must not be negative.")
    if not (math.isfinite(options.temperature) and options.temperature >= 0 and 0 < options.top_p <= 1):
        raise UserError("--temperature must be a number and not negative, and --top-p must be above 0 and at most 1.")


if __name__ == "__main__":
    run(main)
