"""What to report on."""

from dataclasses import dataclass

from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class CorpusInputs:
    """One corpus, a column of the report: dataset directories or URLs that belong together, each where there is one,
    and the image shards with the name of their source, for pictures. `name` is what the report calls it."""

    name: str = "data"
    captions: str | None = None
    nouns: str | None = None
    measures: str | None = None
    latents: str | None = None
    text: str | None = None
    run: str | None = None
    selection: str | None = None
    scenes: str | None = None  # the JSON of pipelines.evaluate scenes
    shards: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        if not any((self.captions, self.nouns, self.latents, self.text, self.run, self.scenes)):
            raise UserError(f"{self.name}: nothing to report on. Give --captions, --nouns, --latents, --text or --run.")
        if bool(self.shards) != bool(self.source):
            raise UserError("--shards and --source belong together: give both, or neither to leave out pictures.")
        if self.shards and not (self.captions or self.latents):
            raise UserError(
                f"{self.name}: --shards without --captions or --latents, which say which pictures. Give one of them."
            )
        if self.measures and not self.captions:
            raise UserError(f"{self.name}: --measures without --captions, whose rows they belong to. Give both.")
