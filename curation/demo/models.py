"""Small checkpoints of the true architectures, with random weights: LLaVA-1.5, a KL autoencoder, a T5 encoder.

They are saved in the hub's own layout and loaded by the same `from_pretrained` as the real ones, so a machine without
network or GPU can run the whole flow. Their output means nothing; its shapes, files and code paths are the real ones.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from curation.scenes.scene import scene
from curation.scenes.sentences import describe

_TEXT: Final = (
    "USER: Describe this image and its style in a very detailed manner. ASSISTANT: The picture shows a red barn by a "
    "narrow river, with two horses in the meadow and low hills behind them under a cloudy evening sky.",
    "A street at night, wet from rain; people with umbrellas pass the lit window of a shop, painted in loose strokes",
    "On a wooden table stand a blue jug, three lemons, an open book and a pair of glasses, photographed from above.",
    "a close-up photo of a small bird on a branch, its feathers brown and white, the background soft and green",
    "A small red circle stands on the left of a plain ground. On the right there is a large yellow heart. The style of "
    "the picture is flat and simple, with clean edges. A green star, a white cross, a black arrow and a pink triangle.",
    "In the centre there is a small purple star. A large black ring stands on the right of a gradient ground.",
    "The style of the picture is blurred and simple. A box, a moon, a house, a tree, a car, a boat, a flower, the "
    "sun, a fish, a cup, a mushroom, an umbrella, a lamp: a sketch of a meadow, a beach at night, or a room.",
)
_NEIGHBOURS: Final = (1, 17, 2, 18)  # T5's buckets for the token before, the next, and those two away; one a head
_NEIGHBOUR_BIAS: Final = 8.0  # of the logit: nearly all of the attention
_DESCRIPTIONS: Final = 600  # of scenes, whose words the T5's tokenizer knows
_WORD: Final = re.compile(r"[^\s.,;:!?]+")
_VICUNA_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_tiny_models(out: Path, *, seed: int = 0) -> dict[str, Path]:
    """Write `llava/`, `vae/` and `t5/` below `out`; same seed, same files. Returns the three directories by name."""
    made = {name: out / name for name in ("llava", "vae", "t5")}
    for number, (name, make) in enumerate((("llava", make_llava), ("vae", make_vae), ("t5", make_t5))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            make(made[name])
    return made


def make_llava(directory: Path, *, image_px: int = 56, patch_px: int = 14) -> None:
    """A LLaVA-1.5: CLIP vision tower, two-layer projector, Llama with grouped queries; (image_px/patch_px)² tokens."""
    tokenizer = _byte_level_tokenizer()
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_px}, crop_size={"height": image_px, "width": image_px}
    )
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch_px,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VICUNA_TEMPLATE,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_px,
        patch_size=patch_px,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(image_px // patch_px) ** 2,
    )
    LlavaForConditionalGeneration(config).eval().save_pretrained(directory)
    processor.save_pretrained(directory)


def make_vae(directory: Path) -> None:
    """A KL autoencoder of Stable Diffusion's shape: 8× down, 4 latent channels, scaling factor 0.18215."""
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=0.18215,
    ).eval().save_pretrained(directory)


def make_t5(directory: Path, *, width: int = 64) -> None:
    """A T5 v1.1 encoder (gated GELU) with a Unigram tokenizer that appends `</s>`.

    All weights are random but those for distance: each head looks at one neighbour of a token. With the usual start
    every head averages over the whole text, and what comes out says which words there are, but not which colour stands
    beside which noun.
    """
    tokenizer = _unigram_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=2,
        num_heads=len(_NEIGHBOURS),
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = T5EncoderModel(config)
    distances = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # [buckets, heads]
    with torch.no_grad():
        distances.zero_()
        for head, bucket in enumerate(_NEIGHBOURS):
            distances[bucket, head] = _NEIGHBOUR_BIAS
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _byte_level_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )


def _unigram_tokenizer() -> Any:
    """A Unigram tokenizer whose pieces are the words of `_TEXT` and of scenes' descriptions, and letters.

    Scored by log frequency; counted here and not trained: the trainer of the library gives other pieces at each run.
    Words of the scenes are in it because a description spelled in letters is longer than the tokens that are read.
    """
    texts = [*_TEXT, *(describe(scene(0, number)) for number in range(_DESCRIPTIONS))]
    words = Counter("▁" + word for text in texts for word in _WORD.findall(text))
    letters = Counter(letter for word in words.elements() for letter in word)
    letters.update("abcdefghijklmnopqrstuvwxyz0123456789.,;:'-!?()")
    total = words.total() + letters.total()
    scored = [(piece, math.log(count / total)) for piece, count in sorted(words.items()) if len(piece) > 1]
    # A letter must cost more than a word, or words would never be chosen.
    scored += [(letter, math.log(count / total) - 10.0) for letter, count in sorted(letters.items())]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="<pad>", padding_side="right"
    )
