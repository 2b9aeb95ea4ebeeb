"""Tokenizers for text prompts."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.model.config import ModelConfig

# XLM-R's special tokens; small vocabularies start with the same four.
BEGIN, PAD, END, UNKNOWN = range(4)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")

# EVF-SAM's multitask models have one more token: before a name, it means all instances of it.
SEMANTIC = "[semantic]"
SEMANTIC_ID = 64_002

# SentencePiece files start with three special pieces, in a different order.
SENTENCEPIECE_SPECIALS = 3
VARINT_BITS = 70  # ten bytes of seven bits, the longest integer of a protocol buffer


class Tokenizer(Protocol):
    """Converts a phrase to token ids, with begin and end tokens."""

    def __call__(self, phrase: str) -> Tensor:
        """Return token ids (1, L), int64."""
        ...


class WordTokenizer:
    """A fixed list of words by id, for small models: lower case, split at spaces."""

    def __init__(self, words: Sequence[str]) -> None:
        self.known = tuple(words[UNKNOWN + 1 :])
        self._ids = {word: UNKNOWN + 1 + n for n, word in enumerate(self.known)}

    def __call__(self, phrase: str) -> Tensor:
        """Return token ids (1, L), int64.

        Raises:
            UsageError: The phrase is empty, or has a word outside the vocabulary.
        """
        words = phrase.lower().split()
        unknown = [word for word in words if word not in self._ids]
        if unknown or not words:
            what = ", ".join(unknown) or "an empty text"
            raise UsageError(
                f"`text` {phrase!r}: this model's vocabulary does not contain {what}; use: "
                f"{', '.join(self.known)}"
            )
        return torch.tensor([[BEGIN, *(self._ids[word] for word in words), END]])


class SentencePieceTokenizer:
    """EVF-SAM's tokenizer: BEiT-3's SentencePiece model with the ids of XLM-R.

    Attributes:
        has_semantic: Whether the network's vocabulary contains the token `[semantic]`.
    """

    def __init__(self, model: Any, *, has_semantic: bool = False) -> None:
        self._model = model
        self.has_semantic = has_semantic

    @classmethod
    def read(cls, path: Path, vocabulary_size: int = 0) -> "SentencePieceTokenizer":
        """Read a SentencePiece unigram model.

        Args:
            path: The file.
            vocabulary_size: Number of the network's word embeddings.

        Raises:
            WeightsError: The file is missing, corrupted or of another kind.
        """
        from tokenizers import Tokenizer as Model
        from tokenizers import models, normalizers, pre_tokenizers

        try:
            pieces, charsmap = read_sentencepiece(path.read_bytes())
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise WeightsError(f"{path}: not a SentencePiece model ({error})") from error
        vocabulary = [(special, 0.0) for special in SPECIAL] + pieces[SENTENCEPIECE_SPECIALS:]
        model = Model(models.Unigram(vocabulary, UNKNOWN, False))
        spaces: list[Any] = [normalizers.Replace(_repeated_spaces(), " ")]
        known = [normalizers.Precompiled(charsmap)] if charsmap else []
        model.normalizer = normalizers.Sequence([*known, *spaces])
        model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        return cls(model, has_semantic=vocabulary_size > SEMANTIC_ID)

    def __call__(self, phrase: str) -> Tensor:
        """Return token ids (1, L), int64.

        Raises:
            UsageError: The phrase is empty.
        """
        pieces = phrase.split(SEMANTIC) if self.has_semantic else [phrase]
        if not any(piece.strip() for piece in pieces):
            raise UsageError("`text` is empty; describe what to segment, such as 'the dog'")
        ids = [BEGIN]
        for number, piece in enumerate(pieces):
            ids += [SEMANTIC_ID] if number else []
            ids += self._model.encode(piece.strip()).ids if piece.strip() else []
        return torch.tensor([[*ids, END]])


def tokenize(tokenizer: Tokenizer, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Convert several phrases to token ids of one length, padded on the right.

    Args:
        tokenizer: The tokenizer of a network.
        phrases: M phrases.

    Returns:
        The token ids (M, L), int64, and where they are only padding, (M, L), bool, which BEiT-3
        must be told: to it, a padding token is a word.

    Raises:
        UsageError: The tokenizer does not accept one of them.
    """
    rows = [tokenizer(phrase)[0] for phrase in phrases]
    ids = pad_sequence(rows, batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) >= lengths[:, None]


def _repeated_spaces() -> Any:
    from tokenizers import Regex

    return Regex(" {2,}")


def tokenizer_for(config: ModelConfig, sentencepiece: Path | None) -> Tokenizer:
    """Return the tokenizer of a network.

    Args:
        config: Configuration of the network; it contains the vocabulary of a small model.
        sentencepiece: The SentencePiece file, for a network without its own vocabulary.

    Raises:
        WeightsError: The SentencePiece file is corrupted.
    """
    if config.words:
        return WordTokenizer(config.words)
    if sentencepiece is None:
        raise ValueError(f"{config.name} needs a SentencePiece model")
    return SentencePieceTokenizer.read(sentencepiece, config.beit3.vocabulary_size)


def read_sentencepiece(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Read the pieces with their scores, and the normalisation table, of a SentencePiece model.

    The file is one protocol buffer (sentencepiece_model.proto): field 1 is a piece (1: text, 2:
    score), field 3 the normaliser (2: its table).

    Raises:
        ValueError: The data is not a SentencePiece model.
    """
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", _bytes(piece.get(2, bytes(4))))
            pieces.append((_bytes(piece.get(1)).decode(), score))
        elif field == 3 and isinstance(value, bytes):
            charsmap = _bytes(dict(_fields(value)).get(2, b""))
    if len(pieces) <= SENTENCEPIECE_SPECIALS:
        raise ValueError("it contains no pieces")
    return pieces, charsmap


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield the field numbers and values of a protocol buffer message."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        kind = key & 7
        if kind == 0:
            number, offset = _varint(data, offset)
            yield key >> 3, number
            continue
        size, offset = _varint(data, offset) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), offset)
        if size < 0 or offset + size > len(data):
            raise ValueError("it is not a protocol buffer")
        yield key >> 3, data[offset : offset + size]
        offset += size


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a variable-length integer; return it and the offset after it."""
    value = shift = 0
    while True:
        if shift >= VARINT_BITS:
            raise ValueError("it is not a protocol buffer")
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset


def _bytes(value: bytes | int | None) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it is not a SentencePiece model")  # noqa: TRY004 - about data, not code
    return value
