"""The engines of `pipelines.caption`: one table of what each takes and how it is chosen."""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.errors import UserError

if TYPE_CHECKING:
    from curation.captions.engine import EngineChoice
    from curation.captions.server_pictures import PictureEncoding


def add_engine_arguments(command: argparse.ArgumentParser) -> None:
    """`--engine`, and what each engine takes. An argument that is not given is None until `engine_choice`."""
    command.add_argument(
        "--engine", choices=tuple(_ENGINES), default="transformers", help="what runs the model (default transformers)"
    )
    own = command.add_argument_group("--engine transformers: the model in the worker's process")
    own.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="auto (default): float32 on the CPU, else bfloat16 where the card has it; changes the captions",
    )
    own.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default cpu)")
    own.add_argument("--batch-size", type=int, metavar="N", help="captions under way at a time (default 8)")
    own.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="compile the decoding step, its shapes kept fixed: for CUDA and long jobs, as it takes a while to start",
    )
    picture = command.add_argument_group("--engine server: what is sent for a picture (all of this changes captions)")
    picture.add_argument(
        "--picture-px", type=int, metavar="PX", help="longest side; default: what a local --model wants"
    )
    picture.add_argument(
        "--picture-pad",
        choices=("auto", "yes", "no"),
        help="pad to a square of the mean colour, as LLaVA-1.5 was trained; auto (default): as a local --model wants",
    )
    picture.add_argument("--picture-format", metavar="FORMAT", help="png (default), jpeg or jpeg:QUALITY")
    server = command.add_argument_group("--engine server: an OpenAI-compatible server")
    server.add_argument("--server-url", metavar="URL[,URL]", help="servers that are running")
    server.add_argument(
        "--server-command",
        metavar="TEMPLATE",
        help="start one server a worker, with {model}, {revision} and {port} filled in: 'vllm serve {model} --port "
        "{port}'",
    )
    server.add_argument("--server-model", metavar="NAME", help="what the server calls the model (default: --model)")
    server.add_argument("--concurrency", type=int, metavar="N", help="requests in flight a worker (default 32)")
    server.add_argument("--request-timeout", type=float, metavar="S", help="seconds for one answer (default 180)")
    server.add_argument("--retries", type=int, metavar="N", help="tries of a request after the first (default 5)")
    server.add_argument(
        "--server-start-timeout", type=float, metavar="S", help="seconds to come up, or to come back (default 900)"
    )
    server.add_argument(
        "--server-restarts", type=int, metavar="N", help="restarts in a row without an answer (default 10)"
    )
    server.add_argument("--server-log", metavar="DIR", help="keep what started servers print")


def engine_choice(options: argparse.Namespace) -> "EngineChoice":
    """The engine that the arguments choose; fills in its defaults.

    Raises `UserError` for arguments of another engine, and for what the engine cannot use.
    """
    for name, engine in _ENGINES.items():
        for argument, default in engine.defaults.items():
            given = getattr(options, argument)
            flag = "--" + argument.replace("_", "-")
            if name != options.engine and given is not None:
                raise UserError(f"{flag} belongs to --engine {name}, this is {options.engine}. Leave it out.")
            if name == options.engine and given is None:
                setattr(options, argument, default)
    return _ENGINES[options.engine].choose(options)


def _transformers(options: argparse.Namespace) -> "EngineChoice":
    from curation.captions.transformers_choice import TransformersChoice
    from curation.captions.transformers_engine import choose_dtype
    from curation.checkpoints import resolve_checkpoint

    if options.batch_size < 1:
        raise UserError("--batch-size must be at least 1.")
    model = resolve_checkpoint(
        options.model, options.revision, needs=("config.json", "processor_config.json|preprocessor_config.json")
    )
    dtype = choose_dtype(options.dtype, options.device)
    return TransformersChoice(model, dtype, options.device, options.batch_size, options.compile)


def _server(options: argparse.Namespace) -> "EngineChoice":
    from curation.captions.server_engine import ServerChoice, ServerSettings
    from curation.captions.server_process import check_command
    from curation.checkpoints import resolve_checkpoint

    _check_server_numbers(options)
    if (options.server_url is None) == (options.server_command is None):
        raise UserError("--engine server needs either --server-url or --server-command.")
    if options.server_command is not None:
        check_command(options.server_command, options.revision)
    source, identity = options.model, f"{options.model}@{options.revision}" if options.revision else options.model
    if os.path.isdir(options.model):
        checkpoint = resolve_checkpoint(options.model, options.revision)
        identity = checkpoint.identity
        source = options.model if options.server_url else checkpoint.source
    elif options.server_command and options.model.startswith((".", "/", "~")):
        raise UserError(f"{options.model}: no such directory. Check --model.")
    return ServerChoice(
        model=identity,
        asked_as=options.server_model or source,
        source=source,
        revision=options.revision,
        encoding=_encoding(options),
        settings=ServerSettings(
            urls=_urls(options.server_url) if options.server_url else (),
            command=options.server_command,
            concurrency=options.concurrency,
            request_seconds=options.request_timeout,
            retries=options.retries,
            start_seconds=options.server_start_timeout,
            restarts=options.server_restarts,
            log_folder=options.server_log and os.path.abspath(options.server_log),
        ),
    )


def _encoding(options: argparse.Namespace) -> "PictureEncoding":
    from curation.captions.server_pictures import CLIP_MEAN, PictureEncoding, kind_named, picture_wanted

    wanted = picture_wanted(options.model) if os.path.isdir(options.model) else None
    if (options.picture_px is None or options.picture_pad == "auto") and wanted is None:
        raise UserError(
            f"{options.model}: what it wants for a picture is not known here. Give --picture-px and --picture-pad yes "
            f"or no (LLaVA-1.5: 336 and yes)."
        )
    side, colour = wanted or (0, None)
    if options.picture_pad != "auto":
        colour = (colour or CLIP_MEAN) if options.picture_pad == "yes" else None
    kind, quality = kind_named(options.picture_format)
    return PictureEncoding(side if options.picture_px is None else options.picture_px, colour, kind, quality)


def _urls(text: str) -> tuple[str, ...]:
    urls = [url.strip().rstrip("/").removesuffix("/v1") for url in text.split(",") if url.strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--server-url {url}: no URL of a server. Write http://HOST:PORT.")
    if not urls:
        raise UserError("--server-url: empty. Write http://HOST:PORT.")
    return tuple(urls)


def _check_server_numbers(options: argparse.Namespace) -> None:
    if options.concurrency < 1 or options.retries < 0 or options.server_restarts < 0:
        raise UserError("--concurrency must be at least 1, --retries and --server-restarts at least 0.")
    if not (0 < options.request_timeout < float("inf") and 0 < options.server_start_timeout < float("inf")):
        raise UserError("--request-timeout and --server-start-timeout must be seconds above 0.")
    if options.picture_px is not None and options.picture_px < 1:
        raise UserError("--picture-px must be at least 1.")


@dataclass(frozen=True, slots=True)
class _Engine:
    """What an engine takes, with defaults, and how it is chosen."""

    defaults: Mapping[str, Any]
    choose: Callable[[argparse.Namespace], "EngineChoice"]


_ENGINES: Mapping[str, _Engine] = {
    "transformers": _Engine({"dtype": "auto", "device": "cpu", "batch_size": 8, "compile": False}, _transformers),
    "server": _Engine(
        {
            "picture_px": None,
            "picture_pad": "auto",
            "picture_format": "png",
            "server_url": None,
            "server_command": None,
            "server_model": None,
            "concurrency": 32,
            "request_timeout": 180.0,
            "retries": 5,
            "server_start_timeout": 900.0,
            "server_restarts": 10,
            "server_log": None,
        },
        _server,
    ),
}
"""Every engine by its name."""
