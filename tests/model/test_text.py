"""Tokenizers."""

import dataclasses
from pathlib import Path

import pytest
import torch

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.hub.locate import tokenizer_file
from av2tsam_cli.model.av2tsam import build
from av2tsam_cli.model.text import SentencePieceTokenizer, tokenize, tokenizer_for

from ..tiny import TINY, sentencepiece_model, shake

LARGE = dataclasses.replace(TINY, words=())


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a checkpoint in a folder without a tokenizer; no models are installed."""
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "evf-sam.safetensors"


def test_words_have_ids_by_position() -> None:
    assert tokenizer_for(TINY, None)("The dog").tolist() == [[0, 4, 5, 2]]


@pytest.mark.parametrize("phrase", ["the cat", "", "  ", "<pad>"])
def test_an_unknown_word_is_an_error_that_lists_the_vocabulary(phrase: str) -> None:
    with pytest.raises(UsageError, match="the, dog, bell"):
        tokenizer_for(TINY, None)(phrase)


@pytest.mark.parametrize("name", ["beit3.spm", "sentencepiece.bpe.model"])
def test_sentencepiece_pieces_have_the_ids_of_xlm_r(checkpoint: Path, name: str) -> None:
    checkpoint.with_name(name).write_bytes(sentencepiece_model())
    tokenizer = tokenizer_for(LARGE, tokenizer_file(checkpoint))
    # Ids are one higher than in the file, which starts with three special pieces, not four.
    assert tokenizer("the dog").tolist() == [[0, 4, 5, 2]]
    assert tokenizer("  the   dog ").tolist() == [[0, 4, 5, 2]]
    assert tokenizer("god").tolist() == [[0, 6, 9, 8, 7, 2]]
    assert tokenizer("the cat")[0, 2:-1].tolist() == [6, 3]


def test_semantic_is_one_token_where_the_vocabulary_has_it(checkpoint: Path) -> None:
    path = checkpoint.with_name("beit3.spm")
    path.write_bytes(sentencepiece_model())
    beit3 = dataclasses.replace(LARGE.beit3, vocabulary_size=64_010)
    tokenizer = tokenizer_for(dataclasses.replace(LARGE, beit3=beit3), path)
    assert tokenizer("[semantic] the dog").tolist() == [[0, 64_002, 4, 5, 2]]
    assert tokenizer("the dog").tolist() == [[0, 4, 5, 2]]
    with pytest.raises(UsageError, match="empty"):
        tokenizer(" [semantic] ")
    assert 64_002 not in tokenizer_for(LARGE, path)("[semantic] the dog")


def test_the_tokenizer_can_be_an_installed_model(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "beit3.spm").write_bytes(sentencepiece_model())
    assert tokenizer_for(LARGE, tokenizer_file(checkpoint))("dog").tolist() == [[0, 5, 2]]


def test_a_missing_tokenizer_is_an_error_that_names_the_files(checkpoint: Path) -> None:
    with pytest.raises(WeightsError, match=r"beit3\.spm"):
        tokenizer_for(LARGE, tokenizer_file(checkpoint))


@pytest.mark.parametrize("data", [b"", b"text", b"\x0a\xff", sentencepiece_model()[:40]])
def test_a_corrupted_tokenizer_is_an_error(checkpoint: Path, data: bytes) -> None:
    checkpoint.with_name("beit3.spm").write_bytes(data)
    with pytest.raises(WeightsError, match="SentencePiece"):
        tokenizer_for(LARGE, tokenizer_file(checkpoint))


def test_an_empty_phrase_is_an_error() -> None:
    with pytest.raises(UsageError, match="empty"):
        SentencePieceTokenizer(None)("  ")


def test_phrases_of_several_lengths_give_the_prompts_that_each_gives_alone() -> None:
    network = build(TINY).eval()
    shake(network)
    tokenizer = tokenizer_for(TINY, None)
    phrases = ["dog", "the dog the bell", "the bell"]
    ids, padding = tokenize(tokenizer, phrases)
    assert ids[0].tolist() == [0, 5, 2, 1, 1, 1]
    assert padding.sum(dim=1).tolist() == [3, 0, 2]
    picture = torch.rand(1, 3, TINY.beit3.image_size, TINY.beit3.image_size)
    encode = network.text_sam.encode_prompt
    with torch.inference_mode():
        together = encode(picture.expand(3, -1, -1, -1), network.embed_text(ids), padding)
        alone = [encode(picture, network.embed_text(tokenizer(phrase))) for phrase in phrases]
        without = encode(picture.expand(3, -1, -1, -1), network.embed_text(ids))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(without[0], together[0], rtol=1e-3)
