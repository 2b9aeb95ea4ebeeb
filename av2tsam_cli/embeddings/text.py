"""What the text sides of CLAP and CLIP share: sizes, checks of phrases, and the embedder.

Importing this module imports neither transformers nor open_clip.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.errors import UsageError, WeightsError

MAX_TOKENS = 77
"""Most tokens of a phrase with its special tokens, in all three models; the rest is cut off."""

PHRASES_AT_ONCE = 64
"""Phrases that are embedded together, which limits the memory."""

BpeKind = Literal["roberta", "gpt2"]
"""Whose vocabulary a byte-level BPE has."""


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text transformer; its hidden layers are four times as wide as the rest."""

    vocabulary_size: int
    """Word embeddings."""
    positions: int
    """Rows of the position table."""
    dim: int
    """Width."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads."""


class PhraseEmbedder(Protocol):
    """Embeds phrases in the space of a CLAP or CLIP, to be compared with sounds or images."""

    @property
    def names(self) -> tuple[str, ...]:
        """The only phrases that it can embed; empty if it can embed any."""
        ...

    @property
    def scale(self) -> float:
        """What cosines were multiplied by in training."""
        ...

    @property
    def bias(self) -> float:
        """What was added to the scaled cosines; 0 if phrases were only compared with each other."""
        ...

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Return embeddings of unit length, float32, (N, E).

        Raises:
            UsageError: A phrase is empty, not English, or not one of the names of a small model.
        """
        ...


class PhraseTokenizer(Protocol):
    """Converts phrases to token ids, with the special tokens and padding of one model."""

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Return token ids (N, L), int64; phrases of more than `MAX_TOKENS` tokens are cut."""
        ...


@dataclass(frozen=True)
class TextEmbedder:
    """A phrase embedder that runs a text encoder."""

    encoder: nn.Module = field(repr=False)
    """A text encoder in evaluation mode, from token ids (N, L) to embeddings (N, E), with the
    natural logarithm of its scale as `logit_scale`."""
    tokenizer: PhraseTokenizer = field(repr=False)
    """Its tokenizer."""
    bias: float = 0.0
    """See `PhraseEmbedder`."""
    names: tuple[str, ...] = ()
    """See `PhraseEmbedder`."""

    @property
    def scale(self) -> float:
        """See `PhraseEmbedder`."""
        logarithm: Any = self.encoder.logit_scale
        return float(logarithm.detach().exp())

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """See `PhraseEmbedder`; the result is on the encoder's device."""
        device = next(self.encoder.parameters()).device
        checked = [check_phrase(phrase) for phrase in phrases]
        batches = [
            self.tokenizer(checked[start : start + PHRASES_AT_ONCE]).to(device)
            for start in range(0, len(checked), PHRASES_AT_ONCE)
        ]
        with torch.inference_mode():
            return torch.cat([F.normalize(self.encoder(ids).float(), dim=1) for ids in batches])


def check_phrase(phrase: str) -> str:
    """Return a phrase with single spaces.

    Raises:
        UsageError: It contains no word, or letters of another script than the Latin one.
    """
    if not any(character.isalnum() for character in phrase):
        raise UsageError(f"{phrase!r}: not a phrase; describe something, such as 'a dog barking'")
    foreign = [c for c in phrase if c.isalpha() and "LATIN" not in unicodedata.name(c, "")]
    if foreign:
        raise UsageError(
            f"{phrase!r}: CLAP and CLIP are trained on English only, and {foreign[0]!r} is not a "
            "Latin letter; write the phrase in English"
        )
    return " ".join(phrase.split())


def read_bpe(path: Path) -> tuple[Any, BpeKind]:
    """Read a byte-level BPE from a `tokenizer.json`, and find out whose vocabulary it has.

    Raises:
        WeightsError: The file is missing, corrupted or of another model.
    """
    from tokenizers import Tokenizer

    try:
        model = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise WeightsError(
            f"{path}: not a tokenizer.json ({str(error)[:80]}); download it again"
        ) from error
    model.no_padding()
    model.no_truncation()
    roberta = [model.token_to_id(token) for token in ("<s>", "<pad>", "</s>")]
    if roberta == [RobertaTokenizer.BEGIN, RobertaTokenizer.PAD, RobertaTokenizer.END]:
        return model, "roberta"
    if model.token_to_id("!") == Gpt2Tokenizer.PAD and model.token_to_id(Gpt2Tokenizer.MARK):
        return model, "gpt2"
    raise WeightsError(
        f"{path}: the tokenizer of neither RoBERTa nor GPT-2; pass the tokenizer.json of "
        "laion/clap-htsat-unfused or openai-community/gpt2"
    )


class RobertaTokenizer:
    """Prepares phrases as LAION CLAP: <s> phrase </s>, padded to the longest."""

    BEGIN, PAD, END = 0, 1, 2

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """See `PhraseTokenizer`."""
        rows = []
        for phrase in phrases:
            ids = self._model.encode(phrase, add_special_tokens=False).ids
            rows.append([self.BEGIN, *ids[: MAX_TOKENS - 2], self.END])
        return _padded(rows, self.PAD)


class Gpt2Tokenizer:
    """Prepares phrases as Microsoft CLAP 2023: the phrase, a space and the end mark.

    Padding has the id 0, which is also that of "!": exclamation marks are removed, because the
    encoder takes the last id other than 0 for the end mark. A long phrase is cut before the mark
    is added, not after.
    """

    PAD = 0
    MARK = "<|endoftext|>"
    SPACE = "Ġ"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._end = [model.token_to_id(token) for token in (self.SPACE, self.MARK)]

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """See `PhraseTokenizer`."""
        rows = []
        for phrase in phrases:
            text = " ".join(phrase.replace("!", " ").replace(self.MARK, " ").split())
            ids = [i for i in self._model.encode(text).ids if i != self.PAD]
            rows.append([*ids[: MAX_TOKENS - len(self._end)], *self._end])
        return _padded(rows, self.PAD)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Return token ids (N, L), padded on the right to the longest row."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
