"""What the captioner is asked (PixArt-α, appendix A.4), and the user's own templates."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.errors import UserError

_PAPER: Final = "Describe this image and its style in a very detailed manner"

NAMED_PROMPTS: Final[Mapping[str, str]] = {
    "sam": _PAPER,
    "laion": "{caption}\n" + _PAPER,
}
"""The paper's two: for pictures without text, and with the raw caption as context."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template. `{caption}` stands for the raw caption, `{label}` and any other field for the source's."""

    template: str

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the template uses."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None)

    def text(self, caption: str | None, label: int | None, extra: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        """The prompt for one sample, and the fields it lacked.

        A line of the template whose field the sample lacks is left out, so that a LAION picture without alt text is
        asked like a SAM picture; the caller flags such rows.
        """
        known = {**extra, "caption": caption, "label": label}
        lines, missing = [], []
        for line in self.template.split("\n"):
            absent = [f for f in Prompt(line).fields if known.get(f) is None]
            missing += absent
            if not absent:
                lines.append(line.format_map({name: known[name] for name in Prompt(line).fields}))
        return "\n".join(lines), tuple(sorted(missing))


def prompt_named(text: str) -> Prompt:
    """The prompt that `text` means: a name of `NAMED_PROMPTS`, or a template of the user's own.

    Raises `UserError` for an empty template, for braces that do not parse, and for fields with a format, which a row
    of another type would fail on.
    """
    template = NAMED_PROMPTS.get(text, text)
    try:
        prompt = Prompt(template)
        fields = prompt.fields
        formatted = sorted(
            name for _, name, form, conversion in string.Formatter().parse(template) if name and (form or conversion)
        )
    except ValueError as error:
        raise UserError(f"--prompt {text!r}: {error}. Write fields as {{caption}}, braces as {{{{ and }}}}.") from None
    bad = sorted(f for f in fields if not f.isidentifier())
    if bad or not template.strip():
        raise UserError(f"--prompt {text!r}: {'field ' + bad[0] if bad else 'empty'}. Name fields like {{caption}}.")
    if formatted:
        raise UserError(f"--prompt {text!r}: field {formatted[0]} has a format. Write {{{formatted[0]}}} alone.")
    if all(Prompt(line).fields for line in template.split("\n") if line.strip()):
        raise UserError(f"--prompt {text!r}: nothing is left of it where a field is missing. Add a plain line.")
    return prompt
