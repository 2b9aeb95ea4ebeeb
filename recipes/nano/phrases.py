"""nano's language: what it can be asked for in words.

A phrase is "the dog" or "the dog and the bell". Every category answers to a few nouns.
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
"""nano's vocabulary: a word's place is its token id."""

_IDS = {word: index for index, word in enumerate(WORDS)}


def phrase(names: list[str], rng: np.random.Generator) -> list[int]:
    """Token ids that name these categories, with a random noun and article for each."""
    ids = [BEGIN]
    for position, name in enumerate(names):
        if position:
            ids.append(_IDS["and"])
        article = "the" if rng.random() < 0.7 else "a"
        ids += [_IDS[article], _IDS[str(rng.choice(NOUNS[name]))]]
    return [*ids, END]


def padded(phrases: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids (P, L) int64 and a mask (P, L) bool that is True where there is only padding."""
    length = max(map(len, phrases))
    ids = torch.full((len(phrases), length), PAD, dtype=torch.int64)
    for row, tokens in enumerate(phrases):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, ids == PAD
