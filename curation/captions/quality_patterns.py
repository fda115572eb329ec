"""What refusals, leaks and stock openings look like in English. One pattern is one way of saying it."""

import re
from functools import lru_cache
from typing import Final

from curation.captions.quality_text import sentence_ends, words

_PICTURE: Final = r"(?:image|picture|photo|photograph|visual|file|attachment|link)s?"
_QUOTED: Final = re.compile(r"\"[^\"]*\"?|“[^”]*”?")
_SPEAKER: Final = re.compile(
    # not "an I beam" or "World War I"
    r"(?:^|[,;:(] |\b[a-z]+(?<!\ban)(?<!\bthe) )I(?:'(?:m|d|ve|ll))?(?= )|\b(?:my|me|mine|myself)\b|^(?:My|Me)\b"
)
_TASK: Final = re.compile(
    rf"\b(?:{_PICTURE}|captions?|describ\w+|descriptions?|identify\w*|assist|answers?|requests?|questions?|"
    r"conversations?|prompts?)\b",
    re.IGNORECASE,
)
_DENIAL: Final = re.compile(
    r"\bI(?:'m| am| was)?(?: \w+ly)? (?:not|no|cannot|can't|can not|don't|do not|won't|will not|couldn't|could not|"
    r"wouldn't|would not|unable|sorry|afraid|apologi[sz]e|refuse|decline|"
    r"(?:must|have to) (?:\w+ly )?(?:refuse|decline))\b"
)
_ASKING: Final = re.compile(
    r"\b(?:please|kindly|can you|could you|would you|if you(?: can| could)?) (?:\w+ly )?(?:please )?(?:re-?)?"
    r"(?:describe|provide|upload|share|attach|send|submit|try|tell|clarify|rephrase)\b|"
    r"\byour (?:message|request|question|image|picture|photo|prompt|query)\b|\bhelp you (?:with|today)\b|"
    r"\bwould you (?:like|mind)\b",
    re.IGNORECASE,
)
_NOT_THERE: Final = (
    r"(?:could not|cannot|can't|couldn't|failed to|did not|didn't|(?:does not|doesn't) seem to|won't|is not|isn't|"
    r"was not|wasn't|were not) (?:be )?(?:load|upload|display|render|come through|open(?:ed)?|(?:load|upload|display|"
    r"access|process|attach|provid|render|retriev|support)(?:ed|ing)|found|available)"
)
_THERE: Final = (
    r"(?:is|are|was|were|has been|have been|to|attached|provided|available|appears?|seems?|found|uploaded|included|"
    r"came|here|in (?:your|the|this) (?:message|request|prompt))"
)
_RULES: Final = r"(?:guidelines|polic(?:y|ies)|programming|capabilit(?:y|ies)|abilit(?:y|ies))"
_IMPERSONAL: Final = re.compile(
    "|".join(
        (
            r"\bas an? (?:\w+[ -]){0,3}?(?:AI|language model|chatbot)\b",
            r"^(?:sorry|apologies|unfortunately)\b",
            rf"\b(?:no|without an?|missing) {_PICTURE} {_THERE}\b",
            rf"\b{_PICTURE}(?: that)?(?: \w+)? {_NOT_THERE}\b",
            rf"\b(?:there (?:is|was|seems to be|appears to be)) no {_PICTURE}\b(?! of)",
            r"\b(?:need|require) (?:more|further|additional) (?:information|context|details?)\b",
            rf"\b(?:against|violates?|violating) (?:my|our|the|usage|content) (?:\w+ )?{_RULES}\b",
            r"\b(?:unable|impossible|not possible) to (?:view|access|process|assist|provide|describe|generate|identify|"
            rf"answer|display|see (?:the|this|any|that|an) {_PICTURE})\b",
            r"\breturned an? (?:empty|invalid) (?:response|answer|result)\b",
        )
    ),
    re.IGNORECASE,
)

_LONGEST: Final = 100  # characters in which a refusal that begins shows itself

_MARKERS: Final = re.compile(
    r"\b(?:USER|ASSISTANT|SYSTEM|HUMAN|GPT|BOT) ?:|"
    r"(?:^|[.!?\n] ?)(?:User|Assistant|Human|System|Question|Instruction) ?: |"
    r"<(?:image|img|video|im_patch|image_placeholder|start_of_\w+|end_of_\w+|[be]os|pad|unk|sep|cls|mask|0x[0-9A-F]{2})>|"
    r"^(?:assistant|user|system|model) (?=[A-Z])|"
    r"</?s>|#{3,}|\[/?INST\]|<</?SYS>>|<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?think>|▁|Ġ|"
    r"\bA chat between a (?:curious )?(?:user|human)\b|\b(?:artificial intelligence|helpful) assistant\b"
)

_MEDIUM: Final = r"(?:image|picture|photo|photograph|scene)"
_OPENING: Final = re.compile(
    rf"^(?:The|This) (?:given |provided )?{_MEDIUM}\b[^.]{{0,20}}?\b(?:features|depicts|shows|showcases|captures|"
    r"displays|presents|portrays|illustrates|contains|includes|consists of|is of)\s+|"
    rf"^(?:The|This) (?:image|picture|photo|photograph) is (?=an? )|"
    rf"^This (?:is|appears to be) an? (?:image|picture|photo|photograph) of |^Pictured(?: here)? is |"
    rf"^In (?:the|this) {_MEDIUM}(?:,\s*|\s+(?=there\b))(?:(?:we|you|one) can see )?|"
    r"^(?:Sure|Certainly|Of course|Absolutely)(?: thing)?[!,.]\s+|"
    r"^Here(?:'s| is) (?:a|an|the|my) [^.:]{0,60}\b(?:description|caption)\b[^.:]{0,60}:\s*|"
    r"^\**(?:Caption|Description|Answer)\**\s*:\**\s*",
    re.IGNORECASE,
)
_NO_START: Final = re.compile(r"(?:that|how|what|who|where|why|him|her|them|itself|us|you|me)\b", re.IGNORECASE)


def refuses(text: str, within: int) -> bool:
    """Whether a refusal begins within so many characters of squeezed `text`.

    A caption tells of a picture; a refusal is somebody talking. So it is one if a sentence, quotations left out, speaks
    of an I together with the task (the image, describing) or of what I cannot or will not do, if it asks a you for
    something, or if it is one of the impersonal phrases for a picture that did not arrive.
    """
    start = 0
    for end in [*sentence_ends(text), len(text)]:
        if start >= within:
            return False
        sentence = _QUOTED.sub(" ", text[start:end].strip().replace("’", "'"))[: within + _LONGEST]
        if _SPEAKER.search(sentence) and (_TASK.search(sentence) or _DENIAL.search(sentence)):
            return True
        if _ASKING.search(sentence) or _IMPERSONAL.search(sentence):
            return True
        start = end
    return False


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
