"""How well a model draws scenes of the small world, as `pipelines.evaluate scenes` counted it."""

from pathlib import Path

from curation.scenes.alignment import AlignmentScore
from schemas.errors import UserError
from schemas.record import from_json


def read_scenes(file: str) -> AlignmentScore:
    """The score in a JSON file. Raises `UserError` for a file that cannot be read, `SchemaError` for another kind."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}). Give the --json of pipelines.evaluate scenes."
        ) from None
    return from_json(AlignmentScore, content, file)
