"""The whole recipe of the small LLaVA: tokenizer, tower, language, and the checkpoint that comes of them."""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from curation.captions.prompts import NAMED_PROMPTS
from curation.demo.llava.language import LanguageRecipe, teach_language
from curation.demo.llava.model import LlavaSize, new_model, new_processor, new_tokenizer
from curation.demo.llava.pictures import Drawn, drawn_scenes
from curation.demo.llava.start import prepare_tower
from curation.demo.llava.tower import BIASED, UNBIASED, TowerRecipe, teach_tower
from curation.scenes.alt_text import alt_text
from curation.scenes.scene import scene
from curation.scenes.sentences import describe
from curation.shards.fingerprint import digest_of

_TOKENIZER_SCENES: Final = 2000


@dataclass(frozen=True, slots=True)
class LlavaRecipe:
    """All that decides the weights, but for the number of threads: float sums depend on how they are split."""

    size: LlavaSize = field(default_factory=LlavaSize)
    tower: TowerRecipe = BIASED
    unbiased: TowerRecipe = UNBIASED
    language: LanguageRecipe = field(default_factory=LanguageRecipe)
    scenes: int = 40_000
    seed: int = 0


def make_llava(out: Path, work: Path, recipe: LlavaRecipe, say: Callable[[str], None]) -> None:
    """Train it and write the checkpoint to `out`.

    `work` keeps drawn pictures, the taught tower (found there, it is not taught again) and snapshots, which are
    checkpoints as well.
    """
    work.mkdir(parents=True, exist_ok=True)
    drawn = drawn_scenes(work / "drawn", recipe.size, count=recipe.scenes, seed=recipe.seed)
    say(f"{recipe.scenes} pictures are drawn")
    torch.manual_seed(recipe.seed)
    tokenizer = new_tokenizer(_texts(recipe.seed), recipe.size)
    processor, model = new_processor(recipe.size, tokenizer), new_model(recipe.size, tokenizer)
    _teach_tower(model.model.vision_tower, drawn, recipe, work, say)
    teach_language(
        model,
        processor,
        drawn,
        recipe.language,
        seed=recipe.seed,
        say=say,
        snapshot=lambda step: save_llava(model, processor, work / f"step-{step:05d}"),
    )
    save_llava(model, processor, out)


def recipe_of(steps: int | None, seed: int) -> LlavaRecipe:
    """The shipped recipe with that seed; for `steps` of the language stage, the rest in proportion."""
    recipe = LlavaRecipe(seed=seed)
    if steps is None:
        return recipe
    share = steps / recipe.language.steps
    return dataclasses.replace(
        recipe,
        tower=dataclasses.replace(recipe.tower, steps=max(1, round(share * recipe.tower.steps))),
        unbiased=dataclasses.replace(recipe.unbiased, steps=max(1, round(share * recipe.unbiased.steps))),
        language=dataclasses.replace(recipe.language, steps=steps),
        scenes=max(1, round(share * recipe.scenes)),
    )


def save_llava(model: Any, processor: Any, directory: Path) -> None:
    """Write the checkpoint in the hub's layout, weights in float16: half the bytes."""
    kept = {name: tensor.half() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(directory, state_dict=kept)
    processor.save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "float16"}, indent=2) + "\n")
    (directory / "model.safetensors").chmod(0o644)


def _teach_tower(tower: Any, drawn: Drawn, recipe: LlavaRecipe, work: Path, say: Callable[[str], None]) -> None:
    """Both stages of the tower, each kept in `work` by what it was made of; what is found there is taken."""
    prepare_tower(tower, drawn)
    made_by: list[Any] = [dataclasses.asdict(recipe.size), drawn.digest, recipe.seed]
    for stage, taught in enumerate((recipe.tower, recipe.unbiased)):
        made_by.append(dataclasses.asdict(taught))
        file = work / f"tower-{digest_of(made_by)[:12]}.pt"
        if file.exists():
            tower.load_state_dict(torch.load(file, weights_only=True))
            say(f"the tower is taken from {file}")
            continue
        if stage:  # what was taken from a file drew no numbers, so that later stages start from seeds of their own
            torch.manual_seed(recipe.seed + stage)
        shares = teach_tower(tower, drawn, taught, seed=recipe.seed + stage, say=say)
        say("right answers of the tower: " + ", ".join(f"{name} {share:.4f}" for name, share in shares.items()))
        torch.save(tower.state_dict(), f"{file}.part")
        os.replace(f"{file}.part", file)


def _texts(seed: int) -> list[str]:
    """What the tokenizer is counted on: the prompt, alt texts and descriptions of training scenes."""
    scenes = [scene(seed, number) for number in range(_TOKENIZER_SCENES)]
    asked = NAMED_PROMPTS["sam"]
    return [f"USER: \n{alt_text(one).text}\n{asked} ASSISTANT: {describe(one)}" for one in scenes]
