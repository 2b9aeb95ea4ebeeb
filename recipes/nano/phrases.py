"""nano's vocabulary and phrases.

A phrase is "the dog" or "the dog and the bell". Each category has one or more nouns.
"""

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.model.text import BEGIN, END, PAD

NOUNS = {
    "dog": ("dog", "puppy"),
    "bird": ("bird",),
    "bell": ("bell",),
    "drum": ("drum",),
    "guitar": ("guitar",),
    "car": ("car", "engine"),
    "siren": ("siren",),
    "singer": ("singer", "person", "face", "man", "woman"),
    "clock": ("clock", "alarm"),
    "kettle": ("kettle", "teapot"),
    "phone": ("phone", "telephone"),
    "trumpet": ("trumpet", "horn"),
    "frog": ("frog",),
    "bee": ("bee",),
    "helicopter": ("helicopter",),
    "maraca": ("maraca", "rattle"),
}
SPECIAL = ("<bos>", "<pad>", "<eos>", "<unk>")
WORDS = (*SPECIAL, "the", "a", "and", *(noun for nouns in NOUNS.values() for noun in nouns))
"""nano's vocabulary: the index of a word is its token id."""

_IDS = {word: index for index, word in enumerate(WORDS)}


def phrase(names: list[str], rng: np.random.Generator) -> list[int]:
    """Return the token ids of a phrase for these categories, with random nouns and articles."""
    ids = [BEGIN]
    for position, name in enumerate(names):
        if position:
            ids.append(_IDS["and"])
        article = "the" if rng.random() < 0.7 else "a"
        ids += [_IDS[article], _IDS[str(rng.choice(NOUNS[name]))]]
    return [*ids, END]


def padded(phrases: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return padded token ids, (P, L) int64, and the padding mask, (P, L) bool."""
    length = max(map(len, phrases))
    ids = torch.full((len(phrases), length), PAD, dtype=torch.int64)
    for row, tokens in enumerate(phrases):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, ids == PAD
