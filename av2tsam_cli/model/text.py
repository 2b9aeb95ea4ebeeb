"""Written phrases to token ids."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.model.config import ModelConfig

# The ids that XLM-R's vocabulary begins with; a small one begins with the same four.
BEGIN, PAD, END, UNKNOWN = range(4)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")

# SentencePiece's own files begin with three specials of theirs, in another order.
THEIR_SPECIALS = 3


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
    """EVF-SAM's tokenizer: BEiT-3's SentencePiece model with the ids of XLM-R."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def read(cls, path: Path) -> "SentencePieceTokenizer":
        """Read a unigram model as SentencePiece writes it.

        Raises:
            WeightsError: If it is missing, damaged or of another kind.
        """
        from tokenizers import Tokenizer as Model
        from tokenizers import models, normalizers, pre_tokenizers

        try:
            pieces, charsmap = read_sentencepiece(path.read_bytes())
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise WeightsError(f"{path}: no SentencePiece model ({error})") from error
        vocabulary = [(special, 0.0) for special in SPECIAL] + pieces[THEIR_SPECIALS:]
        model = Model(models.Unigram(vocabulary, UNKNOWN, False))
        spaces: list[Any] = [normalizers.Replace(_repeated_spaces(), " ")]
        known = [normalizers.Precompiled(charsmap)] if charsmap else []
        model.normalizer = normalizers.Sequence([*known, *spaces])
        model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        return cls(model)

    def __call__(self, phrase: str) -> Tensor:
        """Token ids (1, L), int64.

        Raises:
            UsageError: If the phrase is empty.
        """
        if not phrase.strip():
            raise UsageError("--text is empty; write what to look for, such as 'the dog'")
        return torch.tensor([[BEGIN, *self._model.encode(phrase.strip()).ids, END]])


def _repeated_spaces() -> Any:
    from tokenizers import Regex

    return Regex(" {2,}")


def tokenizer_for(config: ModelConfig, sentencepiece: Path | None) -> Tokenizer:
    """The tokenizer that a network's text embeddings belong to.

    Args:
        config: Of the network. A closed vocabulary comes from there.
        sentencepiece: The SentencePiece model, for a network without a vocabulary of its own.

    Raises:
        WeightsError: The SentencePiece model is damaged.
    """
    if config.words:
        return WordTokenizer(config.words)
    if sentencepiece is None:
        raise ValueError(f"{config.name} needs a SentencePiece model")
    return SentencePieceTokenizer.read(sentencepiece)


def read_sentencepiece(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with their scores, and the normalisation table, of a SentencePiece model.

    The file is one protocol buffer (sentencepiece_model.proto): field 1 is a piece (1: text, 2:
    score), field 3 the normaliser (2: its table).

    Raises:
        ValueError: If it is none.
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
    if len(pieces) <= THEIR_SPECIALS:
        raise ValueError("it holds no pieces")
    return pieces, charsmap


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers and values of a protocol buffer's message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(data, place)
            yield key >> 3, number
            continue
        size, place = _varint(data, place) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), place)
        if size < 0 or place + size > len(data):
            raise ValueError("it is no protocol buffer")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _bytes(value: bytes | int | None) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it is no SentencePiece model")  # noqa: TRY004 - about data, not code
    return value
