"""`python -m pipelines.caption`: dense captions for the pictures in image shards."""

import argparse
import math
from collections.abc import Sequence

from pipelines.command import add_job_arguments, finish, parser, run
from pipelines.image_arguments import add_image_arguments, image_inputs
from schemas.errors import UserError

_UNIT_ROWS = 1024


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, run the job."""
    options = _parser().parse_args(arguments)

    from curation.captions.engine import Decoding
    from curation.captions.prompts import prompt_named
    from curation.captions.stage import CaptionStage
    from curation.captions.transformers_choice import TransformersChoice
    from curation.captions.transformers_engine import choose_dtype
    from curation.checkpoints import resolve_checkpoint
    from curation.execution.job import Job

    _check_numbers(options)
    inputs = image_inputs(options, _UNIT_ROWS)
    model = resolve_checkpoint(
        options.model, options.revision, needs=("config.json", "processor_config.json|preprocessor_config.json")
    )
    t5 = options.t5_tokenizer
    stage = CaptionStage(
        target=inputs.target,
        source=inputs.source,
        choice=TransformersChoice(
            model, choose_dtype(options.dtype, options.device), options.device, options.batch_size
        ),
        prompt=prompt_named(options.prompt),
        decoding=Decoding(options.max_new_tokens, options.temperature, options.top_p),
        policy=inputs.policy,
        seed=options.seed,
        decode_threads=options.decode_threads,
        t5_tokenizer=resolve_checkpoint(t5, None, needs=("tokenizer.json|spiece.model",)) if t5 else None,
        canary_rows=options.canary,
    )
    job = Job(stage, inputs.target, inputs.source.name, inputs.names, inputs.plans(), inputs.unit_rows)
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
    model.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="auto: float32 on the CPU, else bfloat16 where the card has it",
    )
    model.add_argument("--t5-tokenizer", metavar="ID_OR_DIR", help="count each caption's T5 tokens with this tokenizer")
    device = command.add_argument_group("where the model runs")
    device.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or cuda (default cpu)")
    device.add_argument("--batch-size", type=int, default=8, metavar="N", help="pictures a batch (default 8)")
    device.add_argument(
        "--decode-threads", type=int, default=2, metavar="N", help="threads that decode ahead (default 2)"
    )
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
    add_job_arguments(command, unit_rows=_UNIT_ROWS, workers_hint="worker processes, each with its own model")
    return command


def _check_numbers(options: argparse.Namespace) -> None:
    if options.batch_size < 1 or options.max_new_tokens < 1:
        raise UserError("--batch-size and --max-new-tokens must be at least 1.")
    if options.decode_threads < 0 or options.canary < 0:
        raise UserError("--decode-threads and --canary must not be negative.")
    if not (math.isfinite(options.temperature) and options.temperature >= 0 and 0 < options.top_p <= 1):
        raise UserError("--temperature must be a number and not negative, and --top-p must be above 0 and at most 1.")


if __name__ == "__main__":
    run(main)
