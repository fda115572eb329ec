"""Defects planted for the rules that benchmarks.caption_defects leaves out: flags, and the statuses of the engine.

These rules were there before the ways, and no way changed one. `tuning` ways are the rule's own pattern; `held_out`
ones have the defect as a reader would see it, told otherwise than the rule looks for it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.caption_defects import TEXTS_ELSEWHERE, Planted, Way, lower_first, sentences
from curation.captions.engine import FinishReason

_ERRORS: Final = (
    "Error 500: internal server error, see the log of the worker for the reason.",
    '{"error": {"code": 503, "message": "The model is overloaded, try again later."}}',
    "RuntimeError: CUDA out of memory while the next tokens were being generated.",
    "Traceback (most recent call last): the connection was closed by the other side.",
)
_BLANK: Final = ("", "   ", "\n\n\t", "\x00 \x1f", "\u00a0\u2003")
_UNSEEN: Final = ("\u200b\u200b", "\ufeff", "\u00ad", "\u3164", "\u2800\u2800")
_MARKS: Final = ('""', "** **", "```\n```", "<br>", "{}", "null", "---")

_SCRIPTS: Final = (
    "Ένας καφέ σκύλος τρέχει πάνω στη βρεγμένη άμμο δίπλα στη θάλασσα.",
    "Коричневая собака бежит по мокрому песку у моря.",
    "一只棕色的狗在海边的湿沙上奔跑，远处有三棵老树。",
    "茶色い犬が海辺の濡れた砂の上を走っています。",
    "갈색 개 한 마리가 바닷가의 젖은 모래 위를 달린다.",
    "كلب بني يركض على الرمل المبلل قرب البحر.",
    "एक भूरा कुत्ता समुद्र के पास गीली रेत पर दौड़ रहा है।",
)
_NOT_LISTED: Final = (
    "Un gos marró corre per la sorra mullada vora el mar, i darrere la casa hi ha tres arbres vells.",
    "'n Bruin hond hardloop oor die nat sand by die see, en agter die huis staan drie ou bome.",
    "Mbwa wa kahawia anakimbia juu ya mchanga wenye maji karibu na bahari, na nyuma ya nyumba kuna miti mitatu.",
    "Isang kayumangging aso ang tumatakbo sa basang buhangin malapit sa dagat, at may tatlong puno sa likod ng bahay.",
    "Mae ci brown yn rhedeg dros y tywod gwlyb ger y môr, ac y tu ôl i'r tŷ mae tair hen goeden.",
)
_ROMANIZED: Final = (
    "Korichnevaya sobaka bezhit po mokromu pesku u morya, a za domom stoyat tri starykh dereva.",
    "Chairoi inu ga umibe no nureta suna no ue wo hashitte imasu, soshite ie no ushiro ni ki ga sanbon arimasu.",
    "Ek bhura kutta samudra ke paas gili ret par daud raha hai, aur ghar ke piche teen purane ped hain.",
)
_KEYWORDS: Final = (
    "Hund, Strand, Meer, Abendlicht, Wolken, Boot, Wiese, Haus",
    "chien, plage, mer, lumière douce, nuages, bateau, prairie, maison",
    "perro, playa, mar, luz suave, nubes, barco, prado, casa",
)
_SHORT_FIRST: Final = ("A quiet scene.", "It is a sunny day.", "Nobody is there.")
_ABBREVIATED: Final = ("on Fifth Ave.", "at 5 p.m.", "beside Martin Luther King Jr.", "above the sign for No.")
_NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _any_of(texts: Sequence[str], finish: FinishReason = "stop") -> Callable[[str, random.Random], Planted]:
    return lambda text, noise: Planted(noise.choice(texts), finish)


def _first(text: str) -> str:
    return sentences(text)[0].rstrip(".!?")


def _joined(text: str) -> str:
    """The whole caption as one sentence without a full stop."""
    first, *others = (s.rstrip(".!?") for s in sentences(text))
    return " and ".join([first, *map(lower_first, others)]).replace(". ", ", ")


def _elsewhere(noise: random.Random) -> Sequence[str]:
    return TEXTS_ELSEWHERE[noise.choice(sorted(TEXTS_ELSEWHERE))]


def _in_turns(text: str, noise: random.Random) -> Planted:
    """An English sentence, one of another language, and so on, as long as there are both."""
    pairs = zip(sentences(text), _elsewhere(noise), strict=False)  # the shorter one decides
    return Planted(" ".join(f"{english} {other}" for english, other in pairs))


def _plain_capitals(text: str, noise: random.Random) -> Planted:
    spelt: Mapping[str, str] = {"ä": "ae", "ü": "ue", "é": "e", "è": "e"}
    other = " ".join(_elsewhere(noise))
    return Planted("".join(spelt.get(letter, letter) for letter in other).upper())


def _long_words(text: str, count: int) -> list[str]:
    """`count` different long words of a caption, filled up with some of our own."""
    found = dict.fromkeys(word.strip(".,;:").lower() for word in text.split() if len(word) > 5 and word[:5].isalpha())
    return [*found, "window", "garden", "ladder", "basket", "pillow", "candle"][:count]


def _few_words(text: str, noise: random.Random) -> Planted:
    return Planted(" ".join(noise.choices(text.split()[:20], k=60)).capitalize().rstrip(".,") + ".")


def _one_thing(text: str, noise: random.Random) -> Planted:
    """Each long word of the caption replaced by the same one."""
    return Planted(" ".join(word if len(word) < 5 else "thing" + "." * word.endswith(".") for word in text.split()))


def _places(text: str, noise: random.Random) -> Planted:
    thing, ground = _long_words(text, 2)
    sides = ("left", "right", "top", "bottom", "front", "back")
    return Planted(" ".join(f"There is one {thing} at the {side} of the {ground}." for side in sides))


def _chain(text: str, noise: random.Random) -> Planted:
    things = _long_words(text, 6)
    turns = [(noise.choice(things), noise.choice(things)) for _ in range(9)]
    return Planted(" ".join(f"The {a} stands right beside the {b}." for a, b in turns))


def _counted(text: str, noise: random.Random) -> Planted:
    (thing,) = _long_words(text, 1)
    return Planted(" ".join(f"In the {n}th row one can count {n} {thing} pieces." for n in _NUMBERS))


def _same_beginning(text: str, noise: random.Random) -> Planted:
    return Planted(" ".join(f"On this side of it one can also see that {lower_first(s)}" for s in sentences(text)))


MORE_WAYS: Final = (
    Way("engine_error", "no text", "tuning", _any_of(("",), "error")),
    Way("engine_error", "a whole caption, and an error", "held_out", lambda t, n: Planted(t, "error")),
    Way("engine_error", "a message, and an error", "held_out", _any_of(_ERRORS, "error")),
    Way("engine_error", "a message as an answer", "held_out", _any_of(_ERRORS)),
    Way("empty", "white space", "tuning", _any_of(_BLANK)),
    Way("empty", "characters of no width", "held_out", _any_of(_UNSEEN)),
    Way("empty", "marks around nothing", "held_out", _any_of(_MARKS)),
    Way("non_english", "a listed language", "tuning", lambda t, n: Planted(" ".join(_elsewhere(n)))),
    Way("non_english", "another script", "tuning", _any_of(_SCRIPTS)),
    Way("non_english", "a language that is not listed", "held_out", _any_of(_NOT_LISTED)),
    Way("non_english", "another script, in Latin letters", "held_out", _any_of(_ROMANIZED)),
    Way("non_english", "capitals without accents", "held_out", _plain_capitals),
    Way(
        "non_english",
        "a sentence, then another language",
        "held_out",
        lambda t, n: Planted(f"{sentences(t)[0]} {' '.join(_elsewhere(n))}"),
    ),
    Way("non_english", "two languages in turns", "held_out", _in_turns),
    Way("non_english", "eight key words", "held_out", _any_of(_KEYWORDS)),
    Way("open_end", "one sentence, no full stop", "tuning", lambda t, n: Planted(_first(t))),
    Way("open_end", "one sentence, then a comma", "held_out", lambda t, n: Planted(_first(t) + ",")),
    Way("open_end", "one sentence, then a dash", "held_out", lambda t, n: Planted(_first(t) + " -")),
    Way("open_end", "one sentence, then a pictogram", "held_out", lambda t, n: Planted(_first(t) + " 🐕")),
    Way(
        "open_end",
        "one sentence, then an address",
        "held_out",
        lambda t, n: Planted(_first(t) + " https://example.org/dog.html"),
    ),
    Way("open_end", "one sentence, then brackets", "held_out", lambda t, n: Planted(_first(t) + " (from above)")),
    Way("open_end", "all sentences as a long one", "held_out", lambda t, n: Planted(_joined(t))),
    Way(
        "open_end",
        "a short one, then eight words",
        "held_out",
        lambda t, n: Planted(f"{n.choice(_SHORT_FIRST)} {' '.join(t.split()[:8]).rstrip('.,')}"),
    ),
    Way(
        "open_end",
        "cut after an abbreviation",
        "held_out",
        lambda t, n: Planted(f"{' '.join(t.split()[:8]).rstrip('.,')} {n.choice(_ABBREVIATED)}"),
    ),
    Way("low_variety", "60 words of 20", "tuning", _few_words),
    Way("low_variety", "long words all the same", "held_out", _one_thing),
    Way("low_variety", "one thing at six places", "held_out", _places),
    Way("low_variety", "six things beside each other", "held_out", _chain),
    Way("low_variety", "ten rows counted", "held_out", _counted),
    Way("low_variety", "sentences that begin alike", "held_out", _same_beginning),
    Way("low_variety", "a caption, then such things", "held_out", lambda t, n: Planted(f"{t} {_chain(t, n).text}")),
)
