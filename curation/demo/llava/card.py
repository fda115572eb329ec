"""The card of the small LLaVA: what it is, how it was made, how true its captions are; measured, not remembered."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from safetensors import safe_open

from curation.demo.llava.measure import Truthfulness, truthfulness
from curation.demo.llava.recipe import LlavaRecipe
from curation.scenes.scene import Split

_ASKED = ((Split.TEST, "sam"), (Split.NOVEL, "sam"), (Split.TEST, "laion"))
_MINUTES = 35


def write_card(checkpoint: Path, recipe: LlavaRecipe, *, count: int, say: Callable[[str], None]) -> None:
    """Caption `count` scenes a row of the table, write `README.md` into the checkpoint, and tell the table."""
    found = {
        (split, prompt): truthfulness(checkpoint, split=split, count=count, prompt=prompt) for split, prompt in _ASKED
    }
    table = _table({asked: result for asked, (result, _) in found.items()})
    say(table)
    text = files("curation.demo.llava").joinpath("card.md").read_text(encoding="utf-8")
    for name, value in (_facts(checkpoint, recipe) | {"COUNT": str(count), "TABLE": table}).items():
        text = text.replace(f"@{name}@", value)
    slowest = min(result.per_second for result, _ in found.values())
    (checkpoint / "README.md").write_text(text.replace("@SPEED@", f"{slowest:.0f}"), encoding="utf-8")


def _facts(checkpoint: Path, recipe: LlavaRecipe) -> dict[str, str]:
    size, tower, language = recipe.size, recipe.tower, recipe.language
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118 - not a mapping
    return {
        "PARAMETERS": f"{parameters / 1e6:.2f} M",
        "MEGABYTES": f"{(checkpoint / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "IMAGE": str(size.image_px),
        "PATCH": str(size.patch_px),
        "TOKENS": str(size.patches**2),
        "VISION_WIDTH": str(size.vision_width),
        "VISION_LAYERS": str(size.vision_layers),
        "TEXT_WIDTH": str(size.text_width),
        "TEXT_LAYERS": str(size.text_layers),
        "VOCABULARY": str(size.vocabulary),
        "SCENES": f"{recipe.scenes:,}",
        "SEED": str(recipe.seed),
        "MINUTES": str(_MINUTES),
        "TOWER_STEPS": f"{tower.steps:,}",
        "TOWER_BATCH": str(tower.batch_size),
        "LANGUAGE_STEPS": f"{language.steps:,}",
        "LANGUAGE_BATCH": str(language.batch_size),
        "FROZEN": f"{100 * language.frozen:.0f}",
        "UNBIASED_STEPS": f"{recipe.unbiased.steps:,}",
        "TOWER_RECOLOURED": f"{100 * recipe.unbiased.recoloured:.0f}",
        "RECOLOURED": f"{100 * language.recoloured:.0f}",
        "MISREAD": f"{100 * language.misread:.0f}",
        "SEEN": str(tower.patches),
        "WHOLE": f"{100 * (1 - tower.sparse):.0f}",
        "TELLINGS": str(language.tellings),
        "TOWER_SHARE": f"{100 * language.tower_share:.0f}",
        "TELLING": f"{language.telling_weight:.0f}",
        "WITH_ALT": f"{100 * language.with_alt_text:.0f}",
        "TORCH": version("torch").split("+")[0],
        "TRANSFORMERS": version("transformers"),
    }


def _table(found: dict[tuple[Split, str], Truthfulness]) -> str:
    """A row a measure, a column a split and prompt."""
    names = list(next(iter(found.values())).shares)
    rows = [
        "| per cent | " + " | ".join(f"{split.value}, {prompt}" for split, prompt in found) + " |",
        "| --- |" + " ---: |" * len(found),
    ]
    for name in names:
        rows.append(f"| {name} | " + " | ".join(f"{100 * one.shares[name]:.1f}" for one in found.values()) + " |")
    rows.append("| ended by themselves | " + " | ".join(f"{100 * one.finished:.1f}" for one in found.values()) + " |")
    return "\n".join(rows)
