"""The network of a tagger such as ours (hashed word features, windows of maxout layers, softmax), computed at once.

spaCy computes it through a dozen layer objects a batch, hashing and mixing the features of each token anew. Here the
mixed features are remembered by word, and the layers after them work on a few hundred tokens at a time, which stay in
the processor's cache. The weights, the order of layers and the padding between captions are spaCy's, so labels are the
same but where two of them differ by rounding alone. What is remembered of a word does not depend on the words met
before it: new words are computed in blocks of one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from spacy.language import Language
from spacy.tokens import Doc

_Floats = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.uint64]
_Ints = npt.NDArray[np.int64]
_Output = tuple[_Floats, _Floats, _Ints]  # weights [width, labels], bias [labels], the tag of each label

# Features that a word has wherever it stands; NORM, for one, can be set by the tokeniser for one token.
_WORD_FEATURES: Final = frozenset({"ORTH", "LOWER", "PREFIX", "SUFFIX", "SHAPE"})
_TOK2VEC: Final = "spacy.Tok2Vec.v2"
_TAGGER: Final = "spacy.Tagger.v2"
_LISTENER: Final = "spacy.Tok2VecListener.v1"
_EMBED: Final = "spacy.MultiHashEmbed.v2"
_ENCODE: Final = "spacy.MaxoutWindowEncoder.v2"
_EPSILON: Final = 1e-8

_WORDS: Final = 50_000  # remembered; then all are forgotten, so that memory stays flat
_WORDS_AT_ONCE: Final = 128
_TOKENS_AT_ONCE: Final = 512


@dataclass(frozen=True, slots=True)
class _Layer:
    """A maxout layer over a window of three tokens, and its normalisation. `weights` is [3 * width, pieces * width]."""

    weights: _Floats
    bias: _Floats
    scale: _Floats
    shift: _Floats


class TaggingNetwork:
    """Gives the part of speech of each token. `of` makes one of a pipeline whose network it knows."""

    def __init__(self, nlp: Language, embed: Any, layers: Sequence[_Layer], output: _Output) -> None:
        self._nlp, self._embed, self._layers = nlp, embed, layers
        self._output_weights, self._output_bias, self._tags = output
        self._width = len(self._output_weights)
        self._rows: dict[int, int] = {}
        self._features = np.zeros((_WORDS, self._width), np.float32)

    @classmethod
    def of(cls, nlp: Language) -> Self | None:
        """The network of `nlp`; None if the pipeline does more than tok2vec and one tagger, or has other layers."""
        if len(nlp.pipe_names) != 2 or nlp.pipe_names[0] != "tok2vec":
            return None
        if not _is_known(*(nlp.config["components"][name] for name in nlp.pipe_names)):
            return None
        embed, encode = nlp.get_pipe("tok2vec").model.layers
        maxouts, norms = (_named(encode, name) for name in ("maxout", "layernorm"))
        tagger = nlp.get_pipe(nlp.pipe_names[1])
        (softmax,) = _named(tagger.model, "softmax")
        layers = [_layer(maxout, norm) for maxout, norm in zip(maxouts, norms, strict=True)]
        tags = np.array([tagger.cfg["labels_pos"][label] for label in tagger.labels])
        output = np.ascontiguousarray(softmax.get_param("W").T), softmax.get_param("b"), tags
        return cls(nlp, embed, layers, output)

    def tags(self, words: _Ids, lengths: _Ints) -> _Ints:
        """The part of speech of each token, as spaCy numbers them; [tokens].

        `words` are the ORTH ids of the tokens of all captions, one caption after another; `lengths` the tokens of each.
        """
        if not len(words):
            return np.zeros(0, np.int64)
        pad = len(self._layers)
        # As spaCy does, rows of zeros stand between captions: as many as layers, so that none looks into another.
        place = np.arange(len(words)) + pad * (np.repeat(np.arange(len(lengths)), lengths) + 1)
        tokens = np.zeros((place[-1] + 1 + pad, self._width), np.float32)
        distinct, inverse = np.unique(words, return_inverse=True)
        rows = self._rows_of(distinct)[inverse]
        tokens[place] = self._features[rows]
        scores = np.concatenate([self._scores(tokens, start) for start in range(0, len(tokens), _TOKENS_AT_ONCE)])
        out: _Ints = self._tags[scores[place].argmax(axis=1)]
        return out

    def _rows_of(self, words: _Ids) -> _Ints:
        """The row of each distinct word in `_features`."""
        ids = words.tolist()
        new = [word for word in ids if word not in self._rows]
        if len(self._rows) + len(new) > len(self._features):
            self._rows.clear()
            new = ids
            if len(new) > len(self._features):
                self._features = np.zeros((len(new), self._width), np.float32)
        for start in range(0, len(new), _WORDS_AT_ONCE):
            block = new[start : start + _WORDS_AT_ONCE]
            texts = [self._nlp.vocab.strings[word] for word in block]
            filler = [" "] * (_WORDS_AT_ONCE - len(block))
            (features,) = self._embed.predict([Doc(self._nlp.vocab, words=texts + filler)])
            first = len(self._rows)
            self._features[first : first + len(block)] = features[: len(block)]
            self._rows.update(zip(block, range(first, first + len(block)), strict=True))
        return np.fromiter((self._rows[word] for word in ids), np.int64, len(ids))

    def _scores(self, tokens: _Floats, start: int) -> _Floats:
        """The scores of the labels of `tokens` from `start` on, at most `_TOKENS_AT_ONCE`; [tokens, labels]."""
        reach = len(self._layers)
        stop = min(start + _TOKENS_AT_ONCE, len(tokens))
        first, last = max(start - reach, 0), min(stop + reach, len(tokens))
        out = tokens[first:last].copy()
        window = np.zeros((len(out), 3 * self._width), np.float32)
        for layer in self._layers:
            _add_layer(out, window, layer)
        return out[start - first : stop - first] @ self._output_weights + self._output_bias


def _add_layer(tokens: _Floats, window: _Floats, layer: _Layer) -> None:
    """Add to `tokens` [tokens, width] what the layer makes of each with its neighbours. `window` is working space whose
    outermost neighbours are zero."""
    width = tokens.shape[1]
    window[1:, :width] = tokens[:-1]
    window[:, width : 2 * width] = tokens
    window[:-1, 2 * width :] = tokens[1:]
    pieces = window @ layer.weights
    pieces += layer.bias
    best = pieces[:, :width]
    for first in range(width, pieces.shape[1], width):
        best = np.maximum(best, pieces[:, first : first + width])
    best -= best.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", best, best) / width + np.float32(_EPSILON)
    best *= (1 / np.sqrt(variance))[:, None]
    best *= layer.scale
    best += layer.shift
    tokens += best


def _is_known(tok2vec: Any, tagger: Any) -> bool:
    """Whether the two components, by their configuration, are the network that `TaggingNetwork` computes."""
    if (tok2vec.get("factory"), tagger.get("factory")) != ("tok2vec", "morphologizer"):
        return False
    if (tok2vec["model"]["@architectures"], tagger["model"]["@architectures"]) != (_TOK2VEC, _TAGGER):
        return False
    embed, encode, source = tok2vec["model"]["embed"], tok2vec["model"]["encode"], tagger["model"]["tok2vec"]
    return (
        (embed["@architectures"], encode["@architectures"], source["@architectures"]) == (_EMBED, _ENCODE, _LISTENER)
        and set(embed["attrs"]) <= _WORD_FEATURES
        and not embed["include_static_vectors"]
        and encode["window_size"] == 1
    )


def _named(model: Any, name: str) -> list[Any]:
    """The layers of that name, in the order in which they work."""
    return [layer for layer in model.walk(order="dfs_pre") if layer.name == name]


def _layer(maxout: Any, norm: Any) -> _Layer:
    weights = maxout.get_param("W")  # [width, pieces, 3 * width]
    by_piece = weights.transpose(1, 0, 2).reshape(-1, weights.shape[2])
    bias = np.ascontiguousarray(maxout.get_param("b").T.reshape(-1))
    return _Layer(np.ascontiguousarray(by_piece.T), bias, norm.get_param("G"), norm.get_param("b"))
