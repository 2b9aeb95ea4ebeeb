"""Written phrases to token ids."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.model.config import ModelConfig

# The ids that XLM-R's vocabulary begins with; a small one begins with the same four.
BEGIN, PAD, END, UNKNOWN = range(4)


class Tokenizer(Protocol):
    """A phrase to ids, with the begin and end marks."""

    def __call__(self, phrase: str) -> Tensor:
        """Token ids (1, L), int64."""
        ...


class WordTokenizer:
    """A closed list of words by id, for small models: lower case, split at spaces."""

    def __init__(self, words: Sequence[str]) -> None:
        self.known = tuple(words[UNKNOWN + 1 :])
        self._ids = {word: UNKNOWN + 1 + n for n, word in enumerate(self.known)}

    def __call__(self, phrase: str) -> Tensor:
        """Token ids (1, L), int64.

        Raises:
            UsageError: If the phrase is empty or has a word that the model never learnt.
        """
        words = phrase.lower().split()
        unknown = [word for word in words if word not in self._ids]
        if unknown or not words:
            what = ", ".join(unknown) or "an empty text"
            raise UsageError(
                f"--text {phrase!r}: this model does not know {what}; its words are: "
                f"{', '.join(self.known)}"
            )
        return torch.tensor([[BEGIN, *(self._ids[word] for word in words), END]])


class SentencePieceTokenizer:
    """EVF-SAM's tokenizer: XLM-R's, with BEiT-3's `beit3.spm` as its model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, phrase: str) -> Tensor:
        """Token ids (1, L), int64.

        Raises:
            UsageError: If the phrase is empty.
        """
        if not phrase.strip():
            raise UsageError("--text is empty; write what to look for, such as 'the dog'")
        return torch.tensor([self._tokenizer(phrase)["input_ids"]])


def tokenizer_for(config: ModelConfig, folder: str | None = None) -> Tokenizer:
    """The tokenizer that a network's text embeddings belong to.

    Args:
        config: Of the network. A closed vocabulary comes from there.
        folder: Where the SentencePiece model of the large networks lies.

    Raises:
        WeightsError: If the SentencePiece model is needed and is not there.
    """
    if config.words:
        return WordTokenizer(config.words)
    if folder is None:
        raise WeightsError(
            f"{config.name}: text prompts need the tokenizer's file beit3.spm of "
            "YxZhang/evf-sam-multitask on huggingface.co"
        )
    from transformers import XLMRobertaTokenizer

    try:
        return SentencePieceTokenizer(XLMRobertaTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}: no tokenizer can be loaded from there ({error})") from error
