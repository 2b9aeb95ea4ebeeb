"""How well names fit, on phrases whose embeddings are chosen by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.words.scores import LOGITS_PER_Z, MIN_Z, NamedPhrases, NameScores

WIDTH = 64


def direction(seed: int) -> Tensor:
    """Return a random unit vector; any two are nearly orthogonal."""
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return F.normalize(vector, dim=0)


@dataclass(frozen=True)
class Embedder:
    """Embeds phrases in directions of their own, all with the same small share of another one."""

    bias: float = 0.0
    scale: float = 1.0
    names: tuple[str, ...] = ()

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        return F.normalize(
            torch.stack([direction(hash_of(phrase)) + 0.1 * direction(0) for phrase in phrases]),
            dim=1,
        )


def hash_of(phrase: str) -> int:
    """Return a number for a phrase that is the same in every process."""
    return int.from_bytes(phrase.encode()[-6:], "big") % 2**31 + 1


OTHERS = tuple(f"thing number {k}" for k in range(200))
PHRASES = NamedPhrases(
    names=(("a dog barking", "a puppy yelping"), ("a cat meowing",)),
    background=("rain falling",),
    others=OTHERS,
)


def score(embeddings: Tensor, phrases: NamedPhrases = PHRASES) -> Tensor:
    """Score embeddings, with random directions as references."""
    references = torch.stack([direction(seed) for seed in range(1000, 1010)])
    return NameScores(Embedder(), phrases, lambda: references)(embeddings)


def heard(*phrases: str) -> Tensor:
    """Return the embedding of a mixture of sounds."""
    return Embedder()(phrases).sum(dim=0, keepdim=True)


def test_a_name_has_the_score_of_its_best_phrase() -> None:
    dog, cat = score(heard("a puppy yelping"))[0].tolist()
    assert dog > 0 > cat


def test_several_names_can_fit_at_once() -> None:
    assert (score(heard("a dog barking", "a cat meowing")) > 0).all()


def test_no_name_fits_an_unrelated_sound() -> None:
    assert (score(heard(OTHERS[3])) < 0).all()


def test_background_that_fits_better_than_a_name_rejects_it() -> None:
    mixture = 1.2 * heard("rain falling") + heard("a cat meowing")
    assert score(mixture)[0, 1] < 0
    without = NamedPhrases(PHRASES.names, (), (*OTHERS, "rain falling"))
    assert score(mixture, without)[0, 1] > 0


def test_the_length_of_an_embedding_does_not_matter() -> None:
    embedding = heard("a dog barking")
    torch.testing.assert_close(score(embedding), score(37 * embedding))


def test_what_a_phrase_always_scores_is_subtracted() -> None:
    """A phrase near everything, as some are for real encoders, is not heard in everything."""
    near = F.normalize(direction(5) + direction(6), dim=0)

    @dataclass(frozen=True)
    class Biased(Embedder):
        def __call__(self, phrases: Sequence[str]) -> Tensor:
            table = super().__call__(phrases)
            rows = [n for n, phrase in enumerate(phrases) if phrase == "a cat meowing"]
            table[rows] = near
            return table

    usual = torch.stack([direction(5)] * 3)
    with_references = NameScores(Biased(), PHRASES, lambda: usual)(direction(5)[None])
    without = NameScores(Biased(), PHRASES, lambda: torch.stack([direction(999)]))(
        direction(5)[None]
    )
    assert with_references[0, 1] < 0 < without[0, 1]


def test_a_score_is_standard_deviations_above_the_average_phrase() -> None:
    embedding = heard("a cat meowing")
    owned = ["a dog barking", "a puppy yelping", "a cat meowing", "rain falling", *OTHERS]
    table = Embedder()(owned)
    references = torch.stack([direction(seed) for seed in range(1000, 1010)])
    relative = F.normalize(embedding, dim=1) @ table.T - (references @ table.T).mean(dim=0)
    z = (relative - relative.mean()) / relative.std()
    expected = LOGITS_PER_Z * min(z[0, 2] - MIN_Z, z[0, 2] - z[0, 3])
    assert float(score(embedding)[0, 1]) == pytest.approx(float(expected), abs=1e-4)


def test_trained_logits_of_a_table_of_names_are_used_as_they_are() -> None:
    embedder = Embedder(bias=-5.0, scale=10.0, names=("dog", "cat"))
    phrases = NamedPhrases(names=(("dog",), ("cat",)), others=OTHERS)

    def unused() -> Tensor:
        raise AssertionError("references are not needed")

    logits = NameScores(embedder, phrases, unused)(embedder(["dog"]))
    table = embedder(["dog", "cat"])
    torch.testing.assert_close(logits, 10 * table[:1] @ table.T - 5)
