"""The entries of the registry are consistent."""

import hashlib

import pytest

from av2tsam_cli.hub.locate import TOKENIZER_FILES, installed_path, part_name
from av2tsam_cli.hub.registry import AUDIO_MODELS, MODELS, NamedModel, format_bytes, with_needs
from av2tsam_cli.model.config import PRESETS

ENTRIES = pytest.mark.parametrize("entry", MODELS.values(), ids=list(MODELS))


@pytest.mark.parametrize("name", ["nano", *AUDIO_MODELS])
def test_model_and_those_it_needs_contain_every_part(name: str) -> None:
    entry = MODELS[name]
    config = PRESETS[entry.preset or ""]
    rest = {"clip", "clap", "text_sam"} - set(entry.parts)
    assert {part_name(config, part) for part in rest} <= set(entry.needs)
    assert all(MODELS[part_name(config, part)].parts[0] == part for part in rest)


def test_what_a_needed_model_needs_is_needed_too() -> None:
    names = [model.name for model in with_needs("real")]
    assert names[0] == "evf-sam2-text"
    assert {"clap-laion", "roberta-tokenizer", "clip-vit-b-32", "beit3-tokenizer"} < set(names)
    assert len(names) == len(set(names)) == 5
    assert [model.name for model in with_needs("clap-microsoft")] == [
        "clap-microsoft",
        "gpt2-tokenizer",
    ]


@ENTRIES
def test_every_model_has_a_repository_and_lists_what_is_unverified(entry: NamedModel) -> None:
    assert (entry.repository is None) == (entry.name in {"nano", "real"})
    if entry.repository and (entry.file is None or entry.size is None):
        assert entry.unverified


def test_checksum_of_nano_is_that_of_the_bundled_file() -> None:
    # After training a new nano, update the checksum in the registry.
    digest = hashlib.sha256(installed_path("nano").read_bytes()).hexdigest()
    assert MODELS["nano"].sha256 == digest


def test_installed_tokenizer_is_found() -> None:
    assert installed_path("beit3-tokenizer").name in TOKENIZER_FILES


def test_best_model_comes_first() -> None:
    assert AUDIO_MODELS == ("evf-sam2", "evf-sam")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (12, "12 bytes"),
        (999_999, "1000 kB"),
        (14_977_850, "15 MB"),
        (690_000_000, "690 MB"),
        (2_630_000_000, "2.63 GB"),
        (10**16, "10000000 GB"),
    ],
)
def test_sizes_in_words(count: int, text: str) -> None:
    assert format_bytes(count) == text
