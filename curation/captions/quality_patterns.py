"""What refusals, leaks and stock openings look like in English. One pattern is one way of saying it."""

import re
from functools import lru_cache
from typing import Final

from curation.captions.quality_text import words

_PICTURE: Final = r"(?:image|picture|photo|photograph|file|attachment|link|visual)s?"
_ABLE: Final = r"(?: \w+ly| so| very| not)?"
_CANNOT: Final = (
    r"(?:cannot|can't|can not|could not|couldn't|won't|will not|don't|do not|wouldn't|would not|am unable to|"
    r"am not able to)(?: be able to)?(?: \w+ly)?"
)
_ANSWER: Final = (
    r"(?:see|view|describe|identify|assist|help|provide|access|process|analy[sz]e|determine|discern|open|answer|fulfill?|"
    r"comply|tell|display|recogni[sz]e|interpret|create|generate|offer|perceive|continue|engage|do that|find|detect|"
    r"actually|make|comment|discuss|speculate|share|give|produce|write|caption|feel comfortable|support|"
    r"have (?:the ability|access|enough|any|visual|eyes))"
)
_GIVE: Final = r"(?:provide|upload|attach|share|send|give me|try|resend|supply|submit|post|include)"
_NOT_THERE: Final = (
    r"(?:could not|cannot|can't|couldn't|failed to|did not|didn't|(?:does not|doesn't) seem to|won't|is not|isn't|"
    r"was not|wasn't|were not) (?:be )?(?:load|loaded|loading|display|displayed|open|opened|come through|accessed|"
    r"processed|attached|provided|uploaded|rendered|rendering|found|available|retrieved)"
)
_THERE: Final = (
    r"(?:is|are|was|were|has been|have been|to|attached|provided|available|appears?|seems?|found|uploaded|included|"
    r"came|here|in (?:your|the|this) (?:message|request|prompt))"
)
_RULES: Final = r"(?:guidelines|polic(?:y|ies)|programming|capabilit(?:y|ies)|abilit(?:y|ies))"

_REFUSALS: Final = re.compile(
    "|".join(
        (
            rf"\b(?:I am|I'm|we are|we're){_ABLE} (?:sorry|afraid|unable|not able|not allowed|not permitted)\b",
            r"\b(?:I am|I'm)(?: just| only)? (?:an? (?:AI|assistant|language model)|designed|trained|programmed)\b",
            rf"\b(?:I|we)(?: \w+ly)? {_CANNOT} {_ANSWER}\b",
            r"\bas an? (?:\w+[ -]){0,3}?(?:AI|language model|chatbot|assistant)\b",
            r"\b(?:I apologi[sz]e|my apologies|apologies[,.;]|I (?:must|have to) decline|I'd rather not|I regret)",
            rf"\b(?:no|without an?|missing) {_PICTURE} {_THERE}\b",
            rf"\b{_PICTURE}(?: that)?(?: you(?:'ve)? \w+)? {_NOT_THERE}\b",
            rf"\b(?:there (?:is|was|seems to be|appears to be)|I (?:see|find|received|have)) no {_PICTURE}\b(?! of)",
            rf"\b(?:please|could you|can you|kindly|would you)(?: please| kindly)? (?:re-?)?{_GIVE}\b",
            r"\b(?:need|require|without)(?: \w+)? (?:more|further|additional) (?:information|context|details?)\b",
            rf"\b(?:against|violates?|violating|outside|beyond) (?:my|our|the|usage|content) (?:\w+ )?{_RULES}\b",
            r"\b(?:content|safety) (?:policy|filter|guidelines?)\b",
            r"\b(?:unable|not able|impossible|not possible)(?: for me)? to (?:view|access|process|assist|provide|"
            rf"describe|help|display|see (?:the|this|any|that|your) {_PICTURE})\b",
            r"\bunfortunately,? (?:I|we|there (?:is|was) no)\b",
        )
    ),
    re.IGNORECASE,
)
_LONGEST_REFUSAL: Final = 100

_MARKERS: Final = re.compile(
    r"\b(?:USER|ASSISTANT|SYSTEM|HUMAN|GPT|BOT) ?:|"
    r"(?:^|[.!?\n] ?)(?:User|Assistant|Human|System|Question|Instruction) ?: |"
    r"<(?:image|img|video|im_patch|image_placeholder|start_of_\w+|end_of_\w+|[be]os|pad|unk|sep|cls|mask|0x[0-9A-F]{2})>|"
    r"</?s>|#{3,}|\[/?INST\]|<</?SYS>>|<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?think>|▁|Ġ|"
    r"\bA chat between a (?:curious )?(?:user|human)\b|\b(?:artificial intelligence|helpful) assistant\b"
)

_MEDIUM: Final = r"(?:image|picture|photo|photograph|scene)"
_OPENING: Final = re.compile(
    rf"^(?:The|This) {_MEDIUM}\b[^.]{{0,20}}?\b(?:features|depicts|shows|showcases|captures|displays|presents|portrays|"
    r"illustrates|contains|includes|consists of|is of)\s+|"
    rf"^(?:The|This) (?:image|picture|photo|photograph) is (?=an? )|"
    rf"^This is an? (?:image|picture|photo|photograph) of |"
    rf"^In (?:the|this) {_MEDIUM}(?:,\s*|\s+(?=there\b))(?:(?:we|you|one) can see )?|"
    r"^(?:Sure|Certainly|Of course|Absolutely)(?: thing)?[!,.]\s+|"
    r"^Here(?:'s| is) (?:a|an|the|my) [^.:]{0,60}\b(?:description|caption)\b[^.:]{0,60}:\s*|"
    r"^\**(?:Caption|Description|Answer)\**\s*:\**\s*",
    re.IGNORECASE,
)
_NO_START: Final = re.compile(r"(?:that|how|what|who|where|why|him|her|them|itself|us|you|me)\b", re.IGNORECASE)


def refuses(text: str, within: int) -> bool:
    """Whether a refusal begins within so many characters of squeezed `text`."""
    match = _REFUSALS.search(text[: within + _LONGEST_REFUSAL].replace("’", "'"))
    return match is not None and match.start() < within


def has_marker(text: str) -> bool:
    """Whether marks of a chat template or of a tokenizer are in `text`."""
    return _MARKERS.search(text) is not None


def echoes(found: list[str], prompt: str, run: int) -> bool:
    """Whether `found` (words) has `run` words in a row of a fixed part of `prompt` (a template), or all of a part."""
    grams = _prompt_grams(prompt, run)
    sizes = {len(gram) for gram in grams}
    return any(tuple(found[i : i + n]) in grams for n in sizes for i in range(len(found) - n + 1))


@lru_cache(maxsize=16)
def _prompt_grams(prompt: str, run: int) -> frozenset[tuple[str, ...]]:
    grams = set()
    for part in re.split(r"\{[^{}]*\}|\n", prompt):
        found = words(part)
        size = min(run, len(found))
        if size >= min(run, 4):
            grams |= {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}
    return frozenset(grams)


def without_opening(text: str) -> str:
    """Squeezed `text` without the stock phrases at its start, its first letter a capital; as it is if it has none.

    A phrase stays where what follows cannot stand alone ("The image shows that ...", or nothing).
    """
    while match := _OPENING.match(text):
        rest = text[match.end() :].lstrip(" ,;:-*")
        if not rest or _NO_START.match(rest):
            return text
        text = rest[0].upper() + rest[1:] if rest[0].isascii() else rest
    return text
