"""The documents' commands made small: what a test changes in one before it runs it, and nothing else."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from document_commands import Command

from curation.demo.shipped import LLAVA, VAE

HUB: Final = {
    "llava-hf/llava-1.5-7b-hf": LLAVA,
    "stabilityai/sd-vae-ft-ema": VAE,
    "google/flan-t5-xxl": Path("/models/flan-t5-xxl"),
}
"""Models of the hub, and what is taken in their place: shipped ones, and the small T5 of the page's own /models."""

BRACES: Final = {
    "{000000..000999}": "{000000..000001}",
    "{0000..1023}": "{0000..0001}",
    "{000..199}": "{000..001}",
}
"""Ranges of shards, and those that the pages' worlds hold."""

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "pipelines": {"--device": "cpu", "--workers": "1", "--global-batch": "4", "--micro-batch": "4"},
    "pipelines.nouns": {"--at": "4"},
    "pipelines.latents": {"--size": "256"},
    "pipelines.ema": {"--step": "6"},
    "pipelines.evaluate": {"--count": "4"},
    "pipelines.train": {
        "--model": "tiny/2",
        "--steps": "2",
        "--step": "2",
        "--held-out": "0.3",
        "--validate-every": "1",
        "--grid-every": "1",
        "--profile": "1:2",
    },
}
"""By command (`pipelines` is all of them): the small value of each option."""

OF_TRAINING: Final = {
    "--model": "tiny/2",
    "--steps": "2",
    "--global-batch": "4",
    "--micro-batch": "4",
    "--device": "cpu",
    "--log-every": "1",
    "--save-every": "1",
}
"""Given to every training that does not say so itself."""

STAGE_PX: Final = "64"

_PLACE: Final = re.compile(r"(?<![^=])/(?=(?:data|models)/)")  # at the start of a word, or after NAME=


def in_place(word: str, root: Path) -> str:
    """`word` with the documents' absolute paths below `root`."""
    return _PLACE.sub(f"{root}/", word)


def small_arguments(command: Command, root: Path) -> list[str]:
    """The arguments that the test runs the command with."""
    values = VALUES["pipelines"] | VALUES.get(command.module, {})
    words, option = [], ""
    for word in command.arguments:
        option = word if word.startswith("--") else option
        small = values.get(option, word) if word != option else word
        for brace, short in BRACES.items():
            small = small.replace(brace, short)
        words.append(in_place(str(HUB.get(small, small)), root))
    return [*words, *_of_training(words)] if command.module == "pipelines.train" and "--latents" in words else words


def _of_training(words: list[str]) -> list[str]:
    more = [word for option, value in OF_TRAINING.items() if option not in words for word in (option, value)]
    if "--stage" in words:
        more += ["--resolution", STAGE_PX]
        # The width of tiny/2 is no multiple of 3, as micro-conditions need.
        more += ["--no-micro-conditions"] if "aesthetic-1024" in words else []
    return more
