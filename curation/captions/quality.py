"""What one caption is worth: cleaned text, one status, flags. Pure functions of the engine's answer, versioned.

The raw text is never changed. `RULES` is the whole set of rules in the order in which they decide. All of them but
`duplicate_text`, which needs the whole dataset, are applied while captioning; pipelines.clean applies all.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from curation.captions import quality_text as of
from curation.captions.engine import FinishReason
from curation.captions.quality_language import ascii_letters, foreign_share, function_words
from curation.captions.quality_patterns import echoes, has_marker, refuses, without_opening
from curation.captions.quality_thresholds import Thresholds
from schemas.status import USABLE_STATUSES, CaptionStatus

RULES_VERSION: Final = 2

_ALIKE: Final = 0.8
_ALIKE_MIN_WORDS: Final = 6
_REPEATED_MIN_WORDS: Final = 4
_FUNCTION_WORDS_MIN_WORDS: Final = 20
_SURELY_ENGLISH: Final = 0.2  # share of function words
_STUTTER: Final = re.compile(r"(\S)\1{11,}")

Ending = Literal["closed", "open", "trimmed", "cut"]


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of a generated text, whatever the rules make of them; the columns of the captions table."""

    n_words: int
    repeated_4grams: float | None  # share of 4-grams that came before; None under 4 words
    compression: float | None  # bytes over zlib-compressed bytes; None if empty


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at. `text` is what would be kept of `whole`, the squeezed generated text.

    `words` are those of `text` for comparing, `sentences` those of each without its opening. `n_t5_tokens` are of
    `text`, None where nobody counted. `is_duplicate`: whether enough other rows of the dataset have the same text.
    """

    whole: str
    text: str
    words: list[str]
    sentences: list[list[str]]
    ending: Ending
    has_opening: bool
    finish_reason: FinishReason
    prompt: str = ""
    mean_logprob: float | None = None
    n_t5_tokens: int | None = None
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The verdict on one caption; `text` is empty where nothing usable is left. `flags` are sorted.

    `n_t5_tokens` are those of `text`; None if it is empty or nobody counted.
    """

    text: str
    status: CaptionStatus
    flags: tuple[str, ...]
    n_t5_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. If it is the first in the table to fire, `status` is the caption's; None only flags.

    `version` is that of `RULES_VERSION` in which it last changed; `compares` are the thresholds that it uses.
    """

    name: str
    version: int
    status: CaptionStatus | None
    fires: Callable[[Evidence, Thresholds], bool]
    meaning: str
    compares: tuple[str, ...] = ()


def _engine_error(seen: Evidence, than: Thresholds) -> bool:
    return seen.finish_reason == "error"


def _empty(seen: Evidence, than: Thresholds) -> bool:
    return not seen.whole


def _leak(seen: Evidence, than: Thresholds) -> bool:
    return has_marker(seen.whole) or echoes(of.words(seen.whole), seen.prompt, than.echo_words)


def _refusal(seen: Evidence, than: Thresholds) -> bool:
    return any(refuses(text, than.refusal_within) for text in {seen.whole, seen.text})


def _repeated_4grams(seen: Evidence, than: Thresholds) -> bool:
    return (of.repeated_share(seen.words, 4) or 0.0) > than.max_repeated_4grams


def _repeated_sentences(seen: Evidence, than: Thresholds) -> bool:
    counted = [tuple(sentence) for sentence in seen.sentences if len(sentence) >= _REPEATED_MIN_WORDS]
    return len(counted) - len(set(counted)) > than.max_repeated_sentences


def _alike_sentences(seen: Evidence, than: Thresholds) -> bool:
    """Sentences of six words and more that share 80 % of their distinct words with an earlier one."""
    counted = [distinct for distinct in map(set, seen.sentences) if len(distinct) >= _ALIKE_MIN_WORDS]
    alike = 0
    for i, sentence in enumerate(counted):
        alike += any(len(sentence & other) >= _ALIKE * len(sentence | other) for other in counted[:i])
    return alike > than.max_alike_sentences


def _compresses(seen: Evidence, than: Thresholds) -> bool:
    if len(seen.words) <= than.compression_min_words:
        return False
    return of.densest_compression(seen.text) > than.max_compression


def _stutter(seen: Evidence, than: Thresholds) -> bool:
    longest = max((sum(1 for _ in run) for _, run in itertools.groupby(seen.words)), default=0)
    return longest > than.max_stutter or _STUTTER.search(seen.text) is not None


def _non_english(seen: Evidence, than: Thresholds) -> bool:
    """Names and signs in another script are spared where the words around them are English."""
    letters, english = ascii_letters(seen.text), function_words(seen.words)
    if letters < than.min_ascii_letters and (english < _SURELY_ENGLISH or letters < than.min_ascii_letters - 0.2):
        return True
    if foreign_share(seen.words) > than.max_foreign:
        return True
    return len(seen.words) >= _FUNCTION_WORDS_MIN_WORDS and english < than.min_function_words


def _truncated(seen: Evidence, than: Thresholds) -> bool:
    return seen.ending == "cut"


def _too_short(seen: Evidence, than: Thresholds) -> bool:
    return len(seen.words) < than.min_words


def _duplicate_text(seen: Evidence, than: Thresholds) -> bool:
    return seen.is_duplicate


def _trimmed(seen: Evidence, than: Thresholds) -> bool:
    return seen.ending == "trimmed"


def _open_end(seen: Evidence, than: Thresholds) -> bool:
    return seen.ending == "open"


def _stock_opening(seen: Evidence, than: Thresholds) -> bool:
    return seen.has_opening


def _too_long(seen: Evidence, than: Thresholds) -> bool:
    return len(seen.words) > than.max_words


def _low_variety(seen: Evidence, than: Thresholds) -> bool:
    return of.variety(seen.words) < than.min_variety


def _uncertain(seen: Evidence, than: Thresholds) -> bool:
    return seen.mean_logprob is not None and seen.mean_logprob < than.min_logprob


def _over_120(seen: Evidence, than: Thresholds) -> bool:
    return seen.n_t5_tokens is not None and seen.n_t5_tokens > 120


def _over_300(seen: Evidence, than: Thresholds) -> bool:
    return seen.n_t5_tokens is not None and seen.n_t5_tokens > 300


_S = CaptionStatus
RULES: Final = (
    Rule("engine_error", 1, _S.ENGINE_ERROR, _engine_error, "the engine gave no answer"),
    Rule("empty", 1, _S.EMPTY, _empty, "nothing but white space"),
    Rule("leak", 2, _S.LEAK, _leak, "marks of the chat template, or words of the prompt", ("echo_words",)),
    Rule("refusal", 2, _S.REFUSAL, _refusal, "speaks of itself or its input, not of the picture", ("refusal_within",)),
    Rule("repeated_4grams", 2, _S.REPETITION, _repeated_4grams, "4-grams that came before", ("max_repeated_4grams",)),
    Rule(
        "repeated_sentences",
        2,
        _S.REPETITION,
        _repeated_sentences,
        "a sentence of 4 words or more, word by word",
        ("max_repeated_sentences",),
    ),
    Rule(
        "alike_sentences",
        2,
        _S.REPETITION,
        _alike_sentences,
        "sentences that only vary an earlier one",
        ("max_alike_sentences",),
    ),
    Rule(
        "compresses",
        2,
        _S.REPETITION,
        _compresses,
        "100 words in a row that zlib packs too well",
        ("max_compression", "compression_min_words"),
    ),
    Rule("stutter", 2, _S.REPETITION, _stutter, "a word over and over, or 12 times one character", ("max_stutter",)),
    Rule(
        "non_english",
        2,
        _S.NON_ENGLISH,
        _non_english,
        "script and function words are not those of English",
        ("min_ascii_letters", "max_foreign", "min_function_words"),
    ),
    Rule(
        "truncated",
        2,
        _S.TRUNCATED,
        _truncated,
        "the last sentence is cut, and too little stays without it",
        ("trim_keeps", "open_end_words"),
    ),
    Rule("too_short", 2, _S.TOO_SHORT, _too_short, "too few words", ("min_words",)),
    Rule("duplicate_text", 2, _S.DUPLICATE_TEXT, _duplicate_text, "on many rows of the dataset", ("duplicate_rows",)),
    Rule("trimmed", 2, _S.TRIMMED, _trimmed, "the cut last sentence was taken off", ("trim_keeps", "open_end_words")),
    Rule("open_end", 2, None, _open_end, "does not end like a sentence, and nothing says that it was cut"),
    Rule("stock_opening", 2, None, _stock_opening, "begins like «The image features»", ("strip_openings",)),
    Rule("too_long", 2, None, _too_long, "too many words", ("max_words",)),
    Rule("low_variety", 2, None, _low_variety, "few distinct words", ("min_variety",)),
    Rule("uncertain", 2, None, _uncertain, "the engine was unsure of its words", ("min_logprob",)),
    Rule("over_120", 2, None, _over_120, "T5 tokens that PixArt-α would cut"),
    Rule("over_300", 2, None, _over_300, "T5 tokens that PixArt-Σ would cut"),
)
"""All rules; the first that fires and has a status decides. `trimmed` leaves the caption usable."""

DEFAULTS: Final = Thresholds()


def clean(
    generated: str,
    finish_reason: FinishReason,
    thresholds: Thresholds = DEFAULTS,
    *,
    prompt: str = "",
    mean_logprob: float | None = None,
    t5_tokens: Callable[[str], int] | None = None,
) -> Cleaned:
    """Judge one generated caption by all rules but `duplicate_text`, which needs the whole dataset.

    `prompt` is the template that it answered; `t5_tokens` counts the T5 tokens of a text, the end token included.
    Cleaning what `clean` kept gives the same text again (with finish_reason "stop", and the same prompt).
    """
    seen = gather(generated, finish_reason, thresholds, prompt=prompt, mean_logprob=mean_logprob)
    if t5_tokens is not None:
        seen = dataclasses.replace(seen, n_t5_tokens=t5_tokens(seen.text))
    return judge(seen, thresholds)


def gather(
    generated: str,
    finish_reason: FinishReason,
    thresholds: Thresholds = DEFAULTS,
    *,
    prompt: str = "",
    mean_logprob: float | None = None,
) -> Evidence:
    """The evidence on one generated caption, before anybody counted its T5 tokens or its likes.

    The text that would be kept is a stretch of the squeezed generated text,
    with a capital first letter where a stock opening was taken off.
    """
    whole = of.squeeze(generated)
    text, ending = _mend_ending(whole, finish_reason, thresholds)
    shortened = without_opening(text)
    has_opening = shortened != text
    if thresholds.strip_openings:
        text = shortened
    sentences = [of.words(without_opening(sentence)) for sentence in of.sentences(text)]
    words = of.words(text)
    return Evidence(whole, text, words, sentences, ending, has_opening, finish_reason, prompt, mean_logprob)


def judge(seen: Evidence, thresholds: Thresholds = DEFAULTS) -> Cleaned:
    """The verdict: the status of the first rule that fires (ok if none does), and the names of the others that do."""
    fired = [rule for rule in RULES if rule.fires(seen, thresholds)]
    status = next((rule.status for rule in fired if rule.status is not None), CaptionStatus.OK)
    flags = sorted(rule.name for rule in fired if rule.name != status.value)
    if status not in USABLE_STATUSES:
        return Cleaned("", status, tuple(flags))
    return Cleaned(seen.text, status, tuple(flags), seen.n_t5_tokens)


def measure(text: str) -> Measures:
    """The figures of `text`; white space and case make no difference."""
    words = text.lower().split()
    return Measures(len(words), of.repeated_share(words, 4), of.compression(of.squeeze(text)))


def _mend_ending(text: str, finish_reason: FinishReason, than: Thresholds) -> tuple[str, Ending]:
    """`text` up to the end of its last whole sentence where the rest was cut off, if enough of it stays."""
    ends = of.sentence_ends(text)
    if ends and ends[-1] == len(text):
        return text, "closed"
    if finish_reason != "length" and (not ends or len(text.split(" ")) < than.open_end_words):
        return text, "open"
    if not ends or ends[-1] < than.trim_keeps * len(text):
        return text, "cut"
    return text[: ends[-1]], "trimmed"
