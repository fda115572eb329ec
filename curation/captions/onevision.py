"""LLaVA-OneVision's processor without its video half, which alone needs torchvision.

The picture half is the library's own code; only the constructor differs, so that a captioning machine needs no package
for a medium that it never sees.
"""

from typing import Any

from transformers import LlavaOnevisionProcessor, ProcessorMixin


class OnevisionPictureProcessor(LlavaOnevisionProcessor):
    """Prepares pictures and text as `LlavaOnevisionProcessor` does. Loads from the same files."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        vision_aspect_ratio: str = "anyres_max_9",
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.image_token = getattr(tokenizer, "image_token", image_token)
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.vision_aspect_ratio = vision_aspect_ratio
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
