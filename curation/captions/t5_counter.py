"""Counting the T5 tokens of captions, so that what training would cut is known before."""

from collections.abc import Callable

from curation.checkpoints import Checkpoint


def t5_counter(checkpoint: Checkpoint | None) -> Callable[[str], int] | None:
    """A function that counts the tokens of a text, the end token included; None without a tokenizer."""
    if checkpoint is None:
        return None
    from transformers import AutoTokenizer

    where = {"revision": checkpoint.revision} if checkpoint.revision else {}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **where)
    return lambda text: len(tokenizer(text).input_ids)
