"""What is in a feature set, and what the plan makes of it.

    python -m pipelines.inspect --latents DIR --text DIR
    python -m pipelines.inspect --data mixture.toml --shuffle-window 65536 --quality
    python -m pipelines.inspect --latents DIR --text DIR --key 00017/picture-0042 --epoch 3
    python -m pipelines.inspect --latents DIR --text DIR --step 120000 --batches 3

Takes the data and plan options of pipelines.train: what it shows is what that would train on. Changes nothing.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.command import parser, run
from pipelines.data_arguments import DATA_FILE, add_data_arguments, add_plan_arguments, mixture_of, policy_of
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from training.data.inspection import BatchFacts, Contents, KeyFacts, PlanFacts, ShuffleQuality
    from training.data.manifest import Manifest
    from training.data.plan import Plan

_BAR: Final = 40  # characters of the longest bar
_MIB: Final = 2**20
_MOST: Final = 10**9  # steps or epochs: no run has more, and the plan is looked up in time that grows with its log


def main(arguments: Sequence[str]) -> int:
    """Parse, look, print."""
    options = _parser().parse_args(arguments)
    sources, shares = mixture_of(options)
    policy = policy_of(options, shares, options.latent_patch)
    if options.batches < 1 or (options.step or 0) < 0 or options.epoch < 0:
        raise UserError("--step, --epoch and --batches count from 0, 0 and 1 up.")
    if max(options.step or 0, options.epoch, options.batches) > _MOST:
        raise UserError(f"--step, --epoch and --batches go up to {_MOST:,}. Give less.")
    if not 0 <= options.seed < 2**64:
        raise UserError(f"--seed {options.seed} does not fit. Use a whole number from 0 to 2**64 - 1.")

    from training.data.manifest import open_mixture
    from training.data.plan import Plan

    manifest = open_mixture(sources, options.max_unmatched, Path(options.manifest_cache))
    plan = Plan(manifest.population(), options.seed, policy)
    found = _look(options, manifest, plan)
    if options.json:
        print(json.dumps({name: _plain(value) for name, value in found.items()}, indent=2))
    else:
        print("\n".join(line for name, value in found.items() for line in _LINES[name](value)))
    return int(ExitCode.OK)


def _look(options: argparse.Namespace, manifest: "Manifest", plan: "Plan") -> dict[str, Any]:
    """What was asked for, by name: of a key or a step if there is one, else of the whole."""
    from training.data.inspection import batch_facts, contents, key_facts, plan_facts, shuffle_quality

    found: dict[str, Any] = {}
    if options.key is not None:
        found["key"] = [key_facts(manifest, plan, row, options.epoch) for row in manifest.rows_of(options.key)]
    if options.step is not None:
        steps = range(options.step, options.step + options.batches)
        found["batches"] = [batch_facts(manifest, plan, step) for step in steps]
    if not found:
        found |= {"contents": contents(manifest, plan), "plan": plan_facts(plan)}
    if options.quality:
        found["quality"] = shuffle_quality(manifest.population(), plan, manifest.latents.file)
    return found


def _plain(value: Any) -> Any:
    return [asdict(item) for item in value] if isinstance(value, list) else asdict(value)


def _contents_lines(facts: "Contents") -> Iterator[str]:
    yield f"{facts.samples:,} samples, {facts.bytes_a_sample:,.0f} bytes a sample; manifest {facts.digest}"
    yield f"  latents without text {facts.latents_without_text:,}, text without latents {facts.text_without_latents:,}"
    if facts.selected:
        yield f"  selected {facts.selected:,}, of them neither in latents nor text {facts.selected_but_absent:,}"
    yield ""
    yield f"{'bucket':>12} {'samples':>12} {'share':>8} {'latents, MiB':>14}"
    for bucket in facts.buckets:
        yield f"{bucket.size:>12} {bucket.samples:12,} {bucket.share:8.2%} {bucket.latent_bytes / _MIB:14,.1f}"
    for caption in facts.captions:
        yield ""
        yield (
            f"caption variant {caption.variant}: {caption.samples:,} samples, {caption.bytes / _MIB:,.1f} MiB, "
            f"{caption.mean_tokens:.1f} tokens on average, {caption.longest} at most"
        )
        for url, share in caption.truncated.items():
            yield f"  truncated {share:.2%} of {url}"
        most = max(caption.lengths.values(), default=1)
        for tokens, count in caption.lengths.items():
            yield f"{tokens:>12} {count:12,} {'#' * round(_BAR * count / most)}".rstrip()
    yield ""
    yield f"{'dataset':>12} {'samples':>12} {'weight':>8} {'uses an epoch':>14} {'share':>8}  captions, flipped"
    for part in facts.datasets:
        captions = " : ".join(f"{weight:g}" for weight in part.captions)
        yield (
            f"{part.name or '-':>12} {part.samples:12,} {part.weight:8g} {part.uses_an_epoch:14,.1f} "
            f"{part.share_of_uses:8.2%}  {captions}, {part.flipped:g}"
        )
    yield ""


def _plan_lines(facts: "PlanFacts") -> Iterator[str]:
    yield f"plan v{facts.plan_version}, policy {facts.policy_digest}: {facts.policy}"
    sizes = f"{facts.least_samples:,}"
    if facts.most_samples > facts.least_samples:
        sizes += f" to {facts.most_samples:,}"
    yield (
        f"  {facts.batches_first_epoch:,} global batches of {sizes} samples in the first epoch, "
        f"{facts.blocks_an_epoch:,} blocks an epoch"
    )


def _quality_lines(facts: "ShuffleQuality") -> Iterator[str]:
    yield f"shuffle, over {facts.batches:,} batches{'':24} {'here':>12} {'if all were shuffled':>22}"
    rows = (
        ("correlation of step and row", facts.position_correlation, f"±{facts.position_correlation_shuffled:.4f}"),
        ("neighbours in one batch", facts.neighbours_together, f"{facts.neighbours_together_shuffled:.4f}"),
        ("latents files a batch", facts.files_a_batch, f"{facts.files_a_batch_shuffled:.1f}"),
        ("latents files 64 batches in a row", facts.files_a_stretch, f"of {facts.files:,}"),
    )
    for name, here, shuffled in rows:
        yield f"  {name:48} {here:12.4f} {shuffled:>22}"


def _batches_lines(batches: "list[BatchFacts]") -> Iterator[str]:
    head = f"{'step':>10} {'epoch':>6} {'bucket':>12} {'samples':>8} {'text tokens':>12} {'dropped':>8}"
    yield f"{head} {'flipped':>8}  first"
    for batch in batches:
        yield (
            f"{batch.step:10,} {batch.epoch:6,} {batch.bucket:>12} {batch.samples:8,} {batch.text_tokens:12,} "
            f"{batch.dropped_captions:8,} {batch.flipped:8,}  {', '.join(batch.names)}"
        )


def _key_lines(found: "list[KeyFacts]") -> Iterator[str]:
    for facts in found:
        yield f"{facts.name}: row {facts.row:,}, bucket {facts.bucket}, tokens {', '.join(map(str, facts.tokens))}"
        steps = ", ".join(f"{step:,}" for step in facts.steps) or "none"
        yield f"  global batches of epoch {facts.epoch}: {steps}"


_LINES: Final[dict[str, Callable[[Any], Iterator[str]]]] = {
    "contents": _contents_lines,
    "plan": _plan_lines,
    "quality": _quality_lines,
    "batches": _batches_lines,
    "key": _key_lines,
}


def _parser() -> argparse.ArgumentParser:
    command = parser("inspect", __doc__.partition("\n\n")[2] if __doc__ else "")
    command.epilog = f"{DATA_FILE}\n{command.epilog}"
    add_data_arguments(command)
    add_plan_arguments(command, "plan").add_argument(
        "--latent-patch", type=int, default=2, metavar="INT", help="latent cells a side of a token (default 2)"
    )
    show = command.add_argument_group("what to show (default: what there is, and the plan)")
    show.add_argument("--key", metavar="SHARD/KEY", help="which global batches of --epoch hold this sample")
    show.add_argument("--epoch", type=int, default=0, metavar="INT", help="counted from 0 (default 0)")
    show.add_argument("--step", type=int, metavar="INT", help="the global batches from this step on")
    show.add_argument("--batches", type=int, default=1, metavar="INT", help="how many of them (default 1)")
    show.add_argument("--quality", action="store_true", help="how well it is shuffled, and how local reads are")
    show.add_argument("--json", action="store_true", help="print JSON")
    return command


if __name__ == "__main__":
    run(main)
