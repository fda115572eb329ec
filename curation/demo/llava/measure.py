"""How true the captions of a checkpoint are: through the pipeline's own engine, against the truth of the scenes."""

import io
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from curation.captions.engine import Decoding, Request
from curation.captions.prompts import NAMED_PROMPTS, Prompt
from curation.captions.transformers_choice import TransformersChoice
from curation.checkpoints import resolve_checkpoint
from curation.scenes.alt_text import alt_text
from curation.scenes.drawing import draw
from curation.scenes.scene import Scene, Split, scene
from curation.scenes.sentences import PLACES, SIZE_WORDS
from curation.scenes.vocabulary import COLOURS, NOUNS, TEXTURE_NOUNS, world_nouns_in

_JPEG_QUALITY: Final = 90
_MOST_TOKENS: Final = 200
_TEXTURES: Final = {word: texture for texture, noun in TEXTURE_NOUNS.items() for word in (texture, noun)}
_KINDS: Final = {
    "left": "left of",
    "right": "right of",
    **dict.fromkeys(("above", "higher"), "above"),
    **dict.fromkeys(("below", "lower"), "below"),
}
_LOOKS: Final = ("colour", "texture", "size", "row", "column")
_SIZES: Final = {word: size for size, words in SIZE_WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Truthfulness:
    """Shares by name, over `captions` captions made at `per_second`; `finished` is the share that ended by itself."""

    captions: int
    per_second: float
    finished: float
    shares: dict[str, float]


def truthfulness(
    checkpoint: Path, *, split: Split, count: int, prompt: str = "sam", seed: int = 0, batch_size: int = 32
) -> tuple[Truthfulness, list[str]]:
    """Caption the first `count` scenes of a split greedily, from JPEG files of their full size; also the captions.

    `prompt` is one of NAMED_PROMPTS; with "laion" each scene's alt text stands in it.
    """
    scenes = [scene(seed, number, split=split) for number in range(count)]
    template = Prompt(NAMED_PROMPTS[prompt])
    asked = [template.text(alt_text(one).text or None, one.label, {})[0] for one in scenes]
    requests = [
        Request(str(number), _as_file(one), text, -1)
        for number, (one, text) in enumerate(zip(scenes, asked, strict=True))
    ]
    choice = TransformersChoice(resolve_checkpoint(str(checkpoint), None), "float32", "cpu", batch_size)
    engine = choice.open(Decoding(max_new_tokens=_MOST_TOKENS), asked[0])
    start = time.perf_counter()
    completions = list(engine.answers(requests))
    seconds = time.perf_counter() - start
    engine.close()
    texts = [completion.text.strip() for completion in completions]
    finished = sum(completion.finish_reason == "stop" for completion in completions) / count
    return Truthfulness(count, count / seconds, finished, shares_of(scenes, texts)), texts


def shares_of(scenes: Sequence[Scene], texts: Sequence[str]) -> dict[str, float]:
    """Precision and recall of nouns (of things and grounds); of the things that are there and named, how many are
    given the right colour, texture, size, row and column, each counted wrong where the caption does not say it; of the
    relations that are told, how many hold; captions that tell no sentence with a noun twice."""
    tally: Counter[str] = Counter()
    for one, text in zip(scenes, texts, strict=True):
        said, true = world_nouns_in(text), one.nouns
        tally.update(said=len(said), true=len(true), both=len(said & true), exact=said == true)
        relations = list(relations_told(text))
        tally.update(relations=len(relations), true_relations=len([r for r in relations if r in _relations(one)]))
        naming = [sentence for sentence in _sentences(text) if world_nouns_in(sentence)]
        tally["once"] += len(set(naming)) == len(naming)
        told = dict(things_told(text))
        for thing in one.things:
            if (found := told.get(thing.noun)) is None:
                continue
            tally["things"] += 1
            for name in _LOOKS:
                tally[name] += getattr(found, name) == getattr(thing, name)
    shares = {
        "noun precision": tally["both"] / max(1, tally["said"]),
        "noun recall": tally["both"] / max(1, tally["true"]),
        "all nouns right": tally["exact"] / len(texts),
    }
    shares |= {name: tally[name] / max(1, tally["things"]) for name in _LOOKS}
    return shares | {
        "relations": tally["true_relations"] / max(1, tally["relations"]),
        "nothing said twice": tally["once"] / len(texts),
    }


@dataclass(frozen=True, slots=True)
class Told:
    """What a caption says of a thing; None where it says nothing. A texture that is not spoken of is plain."""

    colour: str | None
    texture: str
    size: str | None
    row: str | None
    column: str | None


def things_told(text: str) -> Iterator[tuple[str, Told]]:
    """Each thing that a caption introduces with a place, by noun, and what is said of it there or right after."""
    sentences = _sentences(text)
    for at, sentence in enumerate(sentences):
        words = re.findall(r"[a-z]+", sentence)
        nouns = [word for word in words if word in NOUNS]
        place = _place(sentence)
        if len(nouns) != 1 or place is None:
            continue
        if at + 1 < len(sentences) and sentences[at + 1].startswith("it is "):
            words += re.findall(r"[a-z]+", sentences[at + 1])
        index = words.index(nouns[0])
        colour = words[index - 1] if index and words[index - 1] in COLOURS else None
        texture = next((_TEXTURES[word] for word in words if word in _TEXTURES), "plain")
        yield nouns[0], Told(colour, texture, next((_SIZES[w] for w in words if w in _SIZES), None), *place)


def relations_told(text: str) -> Iterator[tuple[str, str, str]]:
    """Each (noun, kind, noun) that a sentence about two things tells, true or not."""
    for sentence in _sentences(text):
        words = re.findall(r"[a-z]+", sentence)
        nouns = [word for word in words if word in NOUNS]
        kinds = [_KINDS[word] for word in words if word in _KINDS]
        if len(nouns) == 2 and kinds:
            yield nouns[0], kinds[0], nouns[1]


def _relations(scene: Scene) -> set[tuple[str, str, str]]:
    return {(scene.things[r.one].noun, r.kind, scene.things[r.other].noun) for r in scene.relations}


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in text.lower().split(".") if sentence.strip()]


def _place(sentence: str) -> tuple[str, str] | None:
    """Row and column that a sentence names; the longest phrase wins, as some hold a shorter one."""
    found = [
        (len(phrase), place)
        for place, phrases in _PLACES.items()
        for phrase in phrases
        if re.search(rf"\b{phrase}\b", sentence)
    ]
    return max(found)[1] if found else None


_PLACES: Final = {
    place: [re.escape(phrase).replace(re.escape("{image}"), "(image|picture|scene)") for phrase in phrases]
    for place, phrases in PLACES.items()
}


def _as_file(scene: Scene) -> Image.Image:
    """The picture as it comes out of a shard."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")
