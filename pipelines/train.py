"""Train a PixArt on latents and text, or a class-conditional DiT on latents with labels, computed before.

    python -m pipelines.train --stage pixel --latents DIR --out RUN1
    python -m pipelines.train --stage align --init-from RUN1 --latents DIR --text DIR --out RUN2
    python -m pipelines.train --latents DIR --text DIR --out RUN --model XL/2 --steps 150000
    python -m pipelines.train --data mixture.toml --out RUN ...
    torchrun --nproc-per-node 8 -m pipelines.train --latents DIR --text DIR --out RUN ...

    python -m pipelines.train replay --out RUN --step 12345

The same command goes on from the newest checkpoint, at any number of processes, and does nothing once all steps are
done. SIGTERM, SIGUSR1 and SIGINT save at the next step and end each process with exit code 143, 143 and 130; torchrun
itself then ends with 1.
"""

import argparse
import errno
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.data_arguments import mixture_of, policy_of
from pipelines.train_arguments import parser
from schemas.errors import ExitCode, InterruptedJobError, UserError
from training.config import POWER_WIDTHS, EmaConfig, OptimiserConfig, Recipe, RunConfig, scaled_rate
from training.data.mixture import Source
from training.data.policy import Policy
from training.diffusion.config import FLOW, ObjectiveConfig
from training.models.config import DIT_SIZES, PIXART_SIZES, DitConfig, PixArtConfig
from training.models.reading import Reading
from training.stages import CLASSES, FREE, STAGES, TEXT, Stage, resolution

if TYPE_CHECKING:
    from training.data.manifest import Manifest
    from training.weights.handoff import Start

_STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
_LOST = ("Connection closed by peer", "Connection reset by peer")  # gloo's words; it has no error of its own
_LARGEST_PLAIN_BASE: Final = 32  # tokens a side up to which positions are not scaled: 512 px, as released


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["replay"]:
        return replay(arguments[1:])
    options = parser(__doc__).parse_args(arguments)
    rank = int(os.environ.get("RANK", 0))
    name = f"error (rank {rank})" if "RANK" in os.environ else "error"
    try:
        train(options, rank)
    except UserError as error:
        if rank == 0 or not error.alike:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from the last checkpoint", file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except RuntimeError as error:
        if "RANK" not in os.environ or not any(words in str(error) for words in _LOST):
            raise
        print(f"{name}: lost another rank; its own message or torchrun says why", file=sys.stderr, flush=True)
        return ExitCode.STOPPED
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        print(f"{name}: {error}. Free or unlock the disk, then run the same command.", file=sys.stderr, flush=True)
        return ExitCode.STORAGE
    return ExitCode.OK


def replay(arguments: list[str]) -> int:
    """`pipelines.replay`, with its errors told in one line."""
    from pipelines.replay import main as run

    try:
        return run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def train(options: argparse.Namespace, rank: int) -> None:
    """Open the data, settle the configuration, train, print the summary on rank 0."""
    from training.data.manifest import open_mixture
    from training.trainer import train as run

    sources, shares = mixture_of(options)
    stage, usual = stage_of(options)
    policy = policy_of(options, shares, PIXART_SIZES[options.model].patch, usual.global_batch)
    stage = replace(stage, global_batch=policy.global_batch)
    objective = objective_of(options)
    if stage.conditions == TEXT and not all(source.text for source in sources):
        raise UserError("no --text given, and a PixArt trains on text. Name the data set, or use --stage pixel.")
    manifest = open_mixture(sources, options.max_unmatched, Path(options.manifest_cache))
    stage.check_buckets(manifest.buckets)
    config = configure(options, stage, sources, policy, objective, manifest)
    learn = config.recipe.optimiser
    by_muon = f", of the blocks' matrices {learn.muon_lr:.4g} by Muon," if learn.muon_lr else ""
    rate = f"learning rate {learn.lr:.4g}{by_muon} after {stage.warmup_steps:,} steps of warm-up"
    try:
        run(
            replace(config, about=(stage.describe(usual), rate, *config.about)),
            manifest,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except InterruptedJobError:
        _tell_summary(options.out, rank)
        raise
    _tell_summary(options.out, rank)


def _tell_summary(run: str, rank: int) -> None:
    from training.cost.ledger import read_cost, total
    from training.cost.tables import summary_rows
    from training.watching.metrics import summarise, table

    if rank == 0:
        cost = summary_rows(total([read_cost(Path(run))]))
        print("\n".join([table(summarise(Path(run))), *(f"{name:<22}{value:>14}" for name, value in cost)]), flush=True)


def stage_of(options: argparse.Namespace) -> tuple[Stage, Stage]:
    """The stage as the options have it, and as the paper has it."""
    usual = STAGES[options.stage] if options.stage else FREE
    given = {field.name: getattr(options, field.name, None) for field in fields(Stage)}
    return replace(usual, **{name: value for name, value in given.items() if value is not None}), usual


def objective_of(options: argparse.Namespace) -> ObjectiveConfig:
    """The objective that the options mean. Raises `UserError` for options that do not go together."""
    return ObjectiveConfig(**{field.name: getattr(options, field.name) for field in fields(ObjectiveConfig)})


def configure(
    options: argparse.Namespace,
    stage: Stage,
    sources: tuple[Source, ...],
    policy: Policy,
    objective: ObjectiveConfig,
    manifest: "Manifest",
) -> RunConfig:
    """The configuration that the options mean for this data."""
    import torch

    from training.checkpoints.folder import file_digest

    start = _start(options, stage)
    model = model_config(options, stage, manifest, objective.prediction != FLOW)
    if isinstance(model, PixArtConfig) and start is not None:
        model = start.inherited(model)
    on_cuda = options.device != "cpu" and torch.cuda.is_available()
    recipe = Recipe(
        manifest_digest=manifest.digest,
        model=model,
        init_digest=(start.recorded or file_digest(start.path)) if start is not None else "",
        seed=options.seed,
        policy=policy,
        precision=options.precision or ("bf16" if on_cuda else "fp32"),
        optimiser=OptimiserConfig(
            lr=scaled_rate(stage.lr, stage.lr_rule, policy.global_batch),
            weight_decay=options.weight_decay,
            warmup_steps=stage.warmup_steps,
            clip=stage.clip,
            lr_rule=stage.lr_rule,
            muon_lr=scaled_rate(options.muon_lr, stage.lr_rule, policy.global_batch),
        ),
        ema=EmaConfig(options.ema_decay, options.ema_warmup, _power_widths(options.power_ema)),
        objective=objective,
        stage=stage.name,
        reading=_reading(options, start, model),
        held_out=options.held_out,
    )
    settled = ("recipe", "sources", "steps", "micro_batch", "about", "init_from", "grid_classes")
    own = {field.name: getattr(options, field.name) for field in fields(RunConfig) if field.name not in settled}
    return RunConfig(
        recipe=recipe,
        sources=sources,
        steps=stage.steps,
        micro_batch=stage.micro_batch,
        init_from=str(start.path) if start is not None else "",
        grid_classes=tuple(options.grid_classes),
        about=(start.about,) if start and start.about else (),
        **own,
    )


def _start(options: argparse.Namespace, stage: Stage) -> "Start | None":
    """The weights to start from, if any. Raises `UserError` if the stage does not start from such."""
    from training.run_directory import begun
    from training.weights.handoff import Start

    if not options.init_from:
        return None
    start = Start.of(Path(options.init_from), options.init_weights, begun(Path(options.out)))
    stage.check_start(start.stage, str(start.path))
    return start


def _reading(options: argparse.Namespace, start: "Start | None", model: PixArtConfig | DitConfig) -> Reading | None:
    """How the DiT that a PixArt starts from is read; None where it starts from none."""
    if start is None or not isinstance(start.config, DitConfig) or not isinstance(model, PixArtConfig):
        return None
    return Reading(options.reparameterise, options.without_class, options.reparameterise_at)


def _power_widths(asked: list[float] | None) -> tuple[float, ...]:
    return tuple(sorted(asked or POWER_WIDTHS)) if asked is not None else ()


def model_config(
    options: argparse.Namespace, stage: Stage, manifest: "Manifest", learn_sigma: bool
) -> PixArtConfig | DitConfig:
    """The model for this data: channels, text width, and positions for its resolution."""
    name, facts = options.model, manifest.facts
    size = PIXART_SIZES[name]
    token_px = facts.downsample * size.patch
    for height, width in manifest.buckets:
        if height % token_px or width % token_px:
            raise UserError(
                f"the data holds pictures of {height}x{width} px, but --model {name} needs multiples of {token_px} "
                f"px. Make the latents at another size."
            )
    base = resolution(manifest.buckets) // facts.downsample // size.patch
    if stage.conditions == CLASSES:
        return replace(
            DIT_SIZES[name],
            in_channels=facts.channels,
            classes=options.classes,
            learn_sigma=learn_sigma,
            position_base=base,
        )
    return replace(
        size,
        in_channels=facts.channels,
        caption_channels=facts.dim,
        text_tokens=facts.max_tokens,
        learn_sigma=learn_sigma,
        micro_conditions=stage.micro_conditions,
        position_base=base,
        position_scale=stage.position_scale or max(1.0, base / _LARGEST_PLAIN_BASE),
        null_caption=options.null_caption,
    )


if __name__ == "__main__":
    sys.exit(main())
