"""Defects planted into good captions, in ways that are not the rules' own patterns. Deterministic.

Every way is of one split. `tuning` ones were looked at while the rules were written; `held_out` ones were written down
before, are told in other words, and changed no rule. A way whose failure did change one is a tuning way from then on.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from curation.captions.engine import FinishReason

Split = Literal["tuning", "held_out"]
PROMPT: Final = "Describe this image and its style in a very detailed manner"


@dataclass(frozen=True, slots=True)
class Planted:
    """A caption with a defect, as an engine would have answered it."""

    text: str
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to plant `defect`. `make` takes a good caption and a generator seeded for it."""

    defect: str
    name: str
    split: Split
    make: Callable[[str, random.Random], Planted]


def planted(way: Way, captions: Sequence[str]) -> list[Planted]:
    """The defect in each of `captions`; the same for the same captions."""
    return [way.make(text, random.Random(f"{way.name}:{i}")) for i, text in enumerate(captions)]


def sentences(text: str) -> list[str]:
    """The sentences of `text`, told apart more simply than by the rules."""
    return [s for s in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if s]


def _cut(text: str, noise: random.Random, low: float, high: float) -> str:
    """The first words of `text`, so many that the last is in the middle of a sentence."""
    words = text.split()
    places = [i for i in range(int(low * len(words)), int(high * len(words))) if words[i - 1].isalpha()]
    return " ".join(words[: noise.choice([i for i in places if len(words[i - 1]) > 3] or [2])])


def _varied(sentence: str, noise: random.Random, words: Sequence[str]) -> str:
    """`sentence` with one word in the middle replaced."""
    parts = sentence.split()
    parts[noise.randrange(1, max(2, len(parts) - 1))] = noise.choice(words)
    return " ".join(parts)


def lower_first(text: str) -> str:
    """`text` with a small first letter."""
    return text[0].lower() + text[1:]


_TURNS: Final = ("small", "large", "red", "second", "other", "nearby", "wooden", "bright")
_RARE: Final = ("remote", "curved", "pale", "rusty", "tall")

REFUSALS: Final[Mapping[Split, tuple[str, ...]]] = {
    "tuning": (
        "I'm sorry, but I can't help with identifying people in images.",
        "I cannot see the image you are referring to.",
        "As an AI language model, I do not have the ability to view images.",
        "Please upload the image so that I can describe it.",
        "Unfortunately, I am unable to process this picture.",
        "I apologize, but the image did not load.",
        "No image was provided.",
        "I need more information to answer your question.",
        "It is against my guidelines to describe real people.",
        "I can't assist with that.",
        "I can't view images directly. Give me a text of the image instead.",
        "I'm unable to analyze or identify personal traits from this picture.",
        "Unable to generate a caption for this image.",
        "I'm not capable of looking at pictures, so I can only guess.",
        "Sorry, that is something I am not going to describe.",
        "It looks like the picture did not upload correctly. Would you mind trying again?",
        "I don't see any picture in our conversation.",
        "As a text-based model, I have no eyes for photographs.",
        "This request goes against what I am permitted to do.",
        "Without seeing the photo I can only speculate about its content.",
        "The caption service returned an empty response for this image.",
        "If you describe the picture to me, I will gladly help you with a caption.",
        "My training does not let me comment on people in photographs.",
        "I won't be describing the people shown here.",
        "There doesn't seem to be anything attached to your message.",
        "I must respectfully refuse to describe this picture.",
    ),
    "held_out": (
        "It would not be appropriate for me to say who is in the photograph.",
        "What would you like to know about it?",
        "Hello! How may I help you today?",
        "I'm here to chat, but pictures are beyond me.",
        "The file seems to be corrupted and nothing can be shown.",
        "Describing faces is something I have been told to avoid.",
        "Let me know if you need anything else, because this one I have to skip.",
        "Regrettably, visual input is not supported by this model.",
        "Can you tell me more about what you see there?",
        "My apologies for the confusion; nothing reached me but text.",
        "This tool only works with text.",
        "Error: content blocked by the moderation system.",
        "Without further details from you, any description of mine would be invented.",
        "I do not feel able to say what this shows.",
        "Thank you for sharing! Sadly my eyes are only for words.",
        "Request denied.",
    ),
}
"""The first ten of `tuning` were there from the start. The others were held out at first; 16 % of them were found, and
the rule was written anew. What is held out now was written down before that."""

OPENINGS: Final[Mapping[Split, tuple[str, ...]]] = {
    "tuning": (
        "The image features ",
        "This picture shows ",
        "In the image, ",
        "This is an image of ",
        "The scene depicts ",
        "This photograph beautifully captures ",
        "In this photo, we can see ",
        "Here is a detailed description of the picture: ",
        "Sure! The image portrays ",
        "The photograph you sent shows ",
        "Pictured here is ",
        "The given image displays ",
        "This appears to be a photo of ",
    ),
    "held_out": (
        "The uploaded photo shows ",
        "Depicted in this picture is ",
        "What we see in this image is ",
        "Of course! Below is a caption for the photo: ",
        "The picture presents us with ",
        "The image before us contains ",
        "Description: ",
        "The photo is of ",
    ),
}


def _refuse(split: Split) -> Callable[[str, random.Random], Planted]:
    return lambda text, noise: Planted(noise.choice(REFUSALS[split]))


def _refuse_then_describe(split: Split) -> Callable[[str, random.Random], Planted]:
    return lambda text, noise: Planted(f"{noise.choice(REFUSALS[split])} {text}")


def _open(split: Split) -> Callable[[str, random.Random], Planted]:
    return lambda text, noise: Planted(noise.choice(OPENINGS[split]) + lower_first(text))


def _shuffled_list(text: str, noise: random.Random) -> Planted:
    things = ["a cup", "a plate", "a fork", "a glass", "a napkin"]
    return Planted(f"{sentences(text)[0]} On the table there are " + ", ".join(noise.choices(things, k=40)) + ".")


def _around(before: str, after: str, finish: FinishReason = "stop") -> Callable[[str, random.Random], Planted]:
    return lambda text, noise: Planted(f"{before}{text}{after}", finish)


WAYS: Final = (
    Way("truncated", "after a word, limit met", "tuning", lambda t, n: Planted(_cut(t, n, 0.3, 0.95), "length")),
    Way("truncated", "inside a word, limit met", "tuning", lambda t, n: Planted(_cut(t, n, 0.3, 0.95)[:-2], "length")),
    Way("truncated", "after a word, engine silent", "tuning", lambda t, n: Planted(_cut(t, n, 0.6, 0.95))),
    Way("truncated", "after a comma", "held_out", lambda t, n: Planted(_cut(t, n, 0.3, 0.95) + ",", "length")),
    Way("truncated", "in a quotation", "held_out", lambda t, n: Planted(_cut(t, n, 0.6, 0.95) + ' reads "Open')),
    Way("truncated", "after a title", "held_out", lambda t, n: Planted(_cut(t, n, 0.6, 0.95) + " near Dr.", "length")),
    Way("truncated", "at a hyphen", "held_out", lambda t, n: Planted(_cut(t, n, 0.6, 0.95) + " light-")),
    Way("truncated", "at a list number", "held_out", lambda t, n: Planted(t + "\n\n1. The sky\n2.", "length")),
    Way("truncated", "with three dots", "tuning", lambda t, n: Planted(_cut(t, n, 0.3, 0.95) + "...", "length")),
    Way("repetition", "last sentence, 4 times", "tuning", lambda t, n: Planted(" ".join([t, *[sentences(t)[-1]] * 3]))),
    Way(
        "repetition",
        "last 6 words, 7 times",
        "tuning",
        lambda t, n: Planted(t[:-1] + (" " + " ".join(t.split()[-6:])) * 6),
    ),
    Way("repetition", "all of it twice", "tuning", lambda t, n: Planted(f"{t} {t}")),
    Way("repetition", "one word 30 times", "held_out", lambda t, n: Planted(t + " and" * 30)),
    Way(
        "repetition",
        "two sentences in turns",
        "held_out",
        lambda t, n: Planted(t + " " + " ".join(sentences(t)[-2:] * 4), "length"),
    ),
    Way(
        "repetition",
        "a sentence 6 times, a word changed",
        "held_out",
        lambda t, n: Planted(" ".join([t, *(_varied(sentences(t)[-1], n, _TURNS) for _ in range(5))])),
    ),
    Way(
        "repetition",
        "a sentence numbered 5 times",
        "held_out",
        lambda t, n: Planted(" ".join([t, *(f"({i}) {sentences(t)[0]}" for i in range(1, 6))])),
    ),
    Way(
        "repetition",
        "an early sentence once again",
        "tuning",
        lambda t, n: Planted(f"{t} {sentences(t)[0].upper()}"),
    ),
    Way(
        "repetition",
        "once again, two words changed",
        "held_out",
        lambda t, n: Planted(f"{t} {_varied(_varied(sentences(t)[0], n, _RARE), n, _RARE)}"),
    ),
    Way("repetition", "five things, 40 times", "held_out", _shuffled_list),
    Way("repetition", "40 exclamation marks", "held_out", _around("", "!" * 40)),
    Way("leak", "USER and ASSISTANT", "tuning", _around(f"USER: <image>\n{PROMPT} ASSISTANT: ", "")),
    Way("leak", "hash marks", "tuning", _around("", " ### ")),
    Way("leak", "end of sequence", "tuning", _around("", "</s>")),
    Way("leak", "the prompt", "tuning", _around(f"{PROMPT}. ", "")),
    Way("leak", "Human and Assistant", "held_out", _around("", "\nHuman: Thank you. Assistant: You are welcome.")),
    Way("leak", "another template's marks", "held_out", _around("<start_of_turn>model\n", "<end_of_turn>")),
    Way("leak", "a header of roles", "held_out", _around("", "<|eot_id|><|start_header_id|>user")),
    Way("leak", "marks with spaces", "held_out", _around("[ INST ] ", " [ /INST ]")),
    Way("leak", "half of the prompt, capitals", "held_out", _around("", " ITS STYLE IN A VERY DETAILED MANNER.")),
    Way("leak", "the prompt in other words", "held_out", _around("You want the picture and its style described. ", "")),
    Way("leak", "a question and an answer", "held_out", _around("Question: What is it? Answer: ", "")),
    Way("leak", "role in small letters", "tuning", _around("assistant\n\n", "")),
    Way("truncated", "with a one-dot ellipsis", "held_out", lambda t, n: Planted(_cut(t, n, 0.6, 0.95) + "…")),
    Way("truncated", "in brackets", "held_out", lambda t, n: Planted(_cut(t, n, 0.6, 0.95) + " (possibly", "length")),
    Way(
        "repetition",
        "a middle sentence once again",
        "held_out",
        lambda t, n: Planted(f"{t} Overall, {lower_first(sentences(t)[len(sentences(t)) // 2])}"),
    ),
    Way("leak", "a role at the end", "held_out", _around("", "\nuser")),
    Way("leak", "a list of turns", "held_out", _around("[{'role': 'assistant', 'content': '", "'}]")),
    Way("leak", "the prompt without its end", "held_out", _around("Describe this image and its style. ", "")),
    Way("refusal", "alone", "tuning", _refuse("tuning")),
    Way("refusal", "before a caption", "tuning", _refuse_then_describe("tuning")),
    Way("refusal", "alone, other words", "held_out", _refuse("held_out")),
    Way("refusal", "before a caption, other words", "held_out", _refuse_then_describe("held_out")),
    Way("too_short", "first words", "tuning", lambda t, n: Planted(" ".join(t.split()[: n.randint(1, 4)]) + ".")),
    Way(
        "too_short",
        "dots, numbers, pictograms",
        "held_out",
        lambda t, n: Planted(n.choice(["...", "12 34.", "🐕🌊", "N/A"])),
    ),
    Way(
        "too_short",
        "opening and one word",
        "held_out",
        lambda t, n: Planted(n.choice(["The image shows a dog.", "In the image, snow."])),
    ),
    Way("stock_opening", "known", "tuning", _open("tuning")),
    Way("stock_opening", "other words", "held_out", _open("held_out")),
)

TEXTS_ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "de": (
        "Ein brauner Hund läuft über den nassen Sand am Meer.",
        "Das Licht ist weich, und hinter dem Haus stehen drei alte Bäume.",
        "Im Vordergrund liegt ein kleines Boot auf der Wiese.",
    ),
    "fr": (
        "Un chien brun court sur le sable mouillé près de la mer.",
        "La lumière est douce et il y a trois arbres derrière la maison.",
        "Au premier plan, un petit bateau est posé sur l'herbe.",
    ),
    "it": (
        "Un cane marrone corre sulla sabbia bagnata vicino al mare.",
        "La luce è morbida e dietro la casa ci sono tre vecchi alberi.",
        "In primo piano una piccola barca è appoggiata sull'erba.",
    ),
}
"""A few sentences for a machine without the treebanks."""
