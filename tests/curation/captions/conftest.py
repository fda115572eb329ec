"""Tiny checkpoints of the three LLaVA architectures and of another, with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Config,
    SiglipVisionConfig,
)

from curation.captions.onevision import OnevisionPictureProcessor
from curation.captions.transformers_engine import Decoding, TransformersEngine
from curation.checkpoints import resolve_checkpoint
from curation.demo.models import _VICUNA_TEMPLATE, _byte_level_tokenizer


@pytest.fixture(scope="session")
def llava_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "llava-next"
    torch.manual_seed(0)
    tokenizer = _byte_level_tokenizer()
    grid = [[28, 56], [56, 28], [56, 56]]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VICUNA_TEMPLATE,
    )
    config = LlavaNextConfig(
        vision_config=_clip(),
        text_config=LlamaConfig(**_language(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=4,
    )
    LlavaNextForConditionalGeneration(config).eval().save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def llava_onevision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "llava-onevision"
    torch.manual_seed(0)
    tokenizer = _byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    tokenizer.video_token = "<video>"
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    processor = OnevisionPictureProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=grid),
        tokenizer=tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_VICUNA_TEMPLATE,
        vision_aspect_ratio="anyres_max_4",
    )
    language = {**_language(tokenizer), "vocab_size": len(tokenizer)}
    config = LlavaOnevisionConfig(
        vision_config=_siglip(28),
        text_config=Qwen2Config(**language),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
    )
    LlavaOnevisionForConditionalGeneration(config).eval().save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image-text-to-text checkpoint of another family than LLaVA's."""
    directory = tmp_path_factory.mktemp("checkpoints") / "gemma3"
    torch.manual_seed(0)
    tokenizer = _byte_level_tokenizer()
    own = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(own.values())})
    tokenizer._set_model_specific_special_tokens(special_tokens=own)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        chat_template=_VICUNA_TEMPLATE.replace("<image>", own["boi_token"]),
        image_seq_length=16,
    )
    config = Gemma3Config(
        text_config={**_language(tokenizer), "head_dim": 16},
        vision_config=_siglip(56),
        mm_tokens_per_image=16,
        image_token_index=tokenizer.convert_tokens_to_ids(own["image_token"]),
        boi_token_index=tokenizer.convert_tokens_to_ids(own["boi_token"]),
        eoi_token_index=tokenizer.convert_tokens_to_ids(own["eoi_token"]),
    )
    model: Any = Gemma3ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zero at first: sees nothing
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )


def _siglip(image_px: int) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_px,
        patch_size=14,
    )


def _language(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@pytest.fixture(scope="session")
def engine(llava: Path) -> TransformersEngine:
    return open_engine(llava, Decoding(max_new_tokens=12))


def open_engine(directory: Path, decoding: Decoding) -> TransformersEngine:
    return TransformersEngine(
        resolve_checkpoint(str(directory), None), dtype="float32", device="cpu", decoding=decoding
    )


@pytest.fixture(scope="session")
def make_engine() -> Any:
    return open_engine


@pytest.fixture(scope="session")
def picture() -> Any:
    def make(number: int, height: int = 40, width: int = 60) -> Image.Image:
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    return make
