"""The truth about a picture as plain values, as it is written beside the shards."""

from curation.scenes.alt_text import alt_text
from curation.scenes.scene import Scene, Thing
from curation.scenes.sentences import describe
from curation.scenes.vocabulary import NOUNS
from curation.sources.base import JSON


def truth_of(scene: Scene) -> dict[str, JSON]:
    """All that is known of a scene; docs/world.md says what each field means."""
    alt = alt_text(scene)
    return {
        "split": scene.split.value,
        "seed": scene.seed,
        "number": scene.number,
        "class": NOUNS[scene.label],
        "label": scene.label,
        "nouns": [*sorted(scene.nouns)],
        "things": [_thing(thing, scene) for thing in scene.things],
        "relations": [[relation.one, relation.kind, relation.other] for relation in scene.relations],
        "ground": {"kind": scene.ground.kind, "colours": [*scene.ground.colours]},
        "style": scene.style,
        "height": scene.height_px,
        "width": scene.width_px,
        "alt": alt.text,
        "alt_kind": alt.kind,
        "description": describe(scene),
    }


def box_of(thing: Thing, scene: Scene) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the square that a thing fills, as shares of width and height."""
    short = min(scene.height_px, scene.width_px)
    across, down = thing.radius * short / scene.width_px, thing.radius * short / scene.height_px
    return thing.x - across, thing.y - down, thing.x + across, thing.y + down


def _thing(thing: Thing, scene: Scene) -> JSON:
    return {
        "noun": thing.noun,
        "colour": thing.colour,
        "texture": thing.texture,
        "size": thing.size,
        "row": thing.row,
        "column": thing.column,
        "box": [round(side, 4) for side in box_of(thing, scene)],
    }
