"""The small LLaVA before it has learnt anything: CLIP vision tower, projector, Llama, and a processor for all three.

Saved in the hub's layout and loaded by the same `from_pretrained` as LLaVA-1.5.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Vicuna's, as LLaVA-1.5 has it."""

_SPECIAL: Final = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
_HEAD_WIDTH: Final = 32
_LONGEST: Final = 2048  # positions that the language model is declared for


@dataclass(frozen=True, slots=True)
class LlavaSize:
    """How large it is. Pictures of `image_px` become (image_px / patch_px)² tokens."""

    image_px: int = 96
    patch_px: int = 12
    vision_width: int = 192
    vision_layers: int = 5
    text_width: int = 192
    text_layers: int = 3
    vocabulary: int = 896

    @property
    def patches(self) -> int:
        """Patches along a side."""
        return self.image_px // self.patch_px


def new_model(size: LlavaSize, tokenizer: Any) -> Any:
    """A LlavaForConditionalGeneration with random weights.

    Unlike LLaVA-1.5, which takes the output of the last layer but one, it takes that of the last: CLIP's last layer
    serves a loss that this tower never had, so there is none to leave out.
    """
    vision = CLIPVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_width // _HEAD_WIDTH,
        image_size=size.image_px,
        patch_size=size.patch_px,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=8 * size.text_width // 3,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_width // _HEAD_WIDTH,
        num_key_value_heads=size.text_width // _HEAD_WIDTH,
        max_position_embeddings=_LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=size.patches**2,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


def new_processor(size: LlavaSize, tokenizer: Any) -> Any:
    """The LlavaProcessor of such a model: CLIP's picture preparation at `image_px`, padding on the left."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": size.image_px}, crop_size={"height": size.image_px, "width": size.image_px}
        ),
        tokenizer=tokenizer,
        patch_size=size.patch_px,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which "default" drops
        chat_template=CHAT_TEMPLATE,
    )


def new_tokenizer(texts: Iterable[str], size: LlavaSize) -> Any:
    """A byte-level BPE tokenizer: any prompt can be read, and words that are common in `texts` are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
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
