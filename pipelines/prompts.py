"""`python -m pipelines.prompts`: embed prompts once, for the pictures that `pipelines.train --grid-every` draws."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from pipelines.sampling_arguments import add_device_argument, device_of
from schemas.errors import ExitCode, StorageError, UserError
from training.evaluation.prompt_lists import read_prompts

_TOKENS = 120  # PixArt-α's longest caption


def main(arguments: Sequence[str]) -> int:
    """Embed the prompts and write the file."""
    command = parser("prompts", "Embed prompts with a T5, for the pictures that pipelines.train draws while it trains.")
    prompts = command.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompts", nargs="+", metavar="TEXT", help="the prompts")
    prompts.add_argument("--prompts-file", type=Path, metavar="FILE", help="one prompt a line; or .jsonl with `prompt`")
    command.add_argument("--t5", required=True, metavar="DIR", help="T5 model and tokenizer that embedded the captions")
    command.add_argument("--max-tokens", type=int, default=_TOKENS, metavar="N", help="longest (default %(default)s)")
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="a .safetensors file")
    add_device_argument(command)
    options = command.parse_args(arguments)
    if options.max_tokens < 2:
        raise UserError(f"--max-tokens {options.max_tokens}: must be at least 2, one word and the end token.")
    chosen = options.prompts or read_prompts(options.prompts_file)

    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from training.sampling.drawing import text_dtype
    from training.sampling.prompts import PromptEncoder
    from training.watching.grids import PROMPTS_KEY

    device = device_of(options.device)
    found = PromptEncoder(options.t5, device, text_dtype(device))(chosen, options.max_tokens)
    for prompt, cut in zip(chosen, found.truncated, strict=True):
        if cut:
            print(f"warning: only the first {options.max_tokens} tokens are used of: {prompt}")
    tensors = {"text": found.text.half().contiguous(), "lengths": found.lengths.contiguous()}
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, options.out, {PROMPTS_KEY: json.dumps(chosen)})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{options.out}: cannot be written ({error}). Free space or check it.") from None
    print(f"{len(chosen)} prompts in {options.out}")
    return ExitCode.OK


if __name__ == "__main__":
    run(main)
