"""How good are the pictures of a run?

    python -m pipelines.evaluate prompts --coco captions_val2014.json --count 30000 --out coco30k.jsonl
    python -m pipelines.evaluate generate --run RUN --t5 DIR --vae DIR --prompts coco30k.jsonl --out pictures/
    torchrun --nproc-per-node 8 -m pipelines.evaluate generate --from-run RUN ...
    python -m pipelines.evaluate score --samples pictures/ --reference val2014/ --square 256 --features inception.pt
    python -m pipelines.evaluate loss --run RUN --latents DIR --text DIR
    python -m pipelines.evaluate scene-prompts --count 400 --out scenes.jsonl
    python -m pipelines.evaluate scenes --samples pictures/ --truth scenes.jsonl

`generate` also takes T2I-CompBench's and GenEval's prompts and lays the pictures out as their own tools expect.
docs/evaluation.md says which choices move the numbers, and how COCO-30K is done.
"""

from collections.abc import Sequence

from pipelines import evaluate_generate, evaluate_loss, evaluate_prompts, evaluate_scenes, evaluate_score
from pipelines.command import parser, run


def main(arguments: Sequence[str]) -> int:
    """Run the command named first; returns its exit code."""
    command = parser("evaluate", __doc__ or "")
    parts = command.add_subparsers(dest="part", required=True, metavar="COMMAND")
    for part in (evaluate_prompts, evaluate_generate, evaluate_score, evaluate_loss):
        part.add(parts)
    evaluate_scenes.add_prompts(parts)
    evaluate_scenes.add_scenes(parts)
    options = command.parse_args(arguments)
    code: int = options.act(options)
    return code


if __name__ == "__main__":
    run(main)
