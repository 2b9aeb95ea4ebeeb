"""What is said of the named models fits together."""

import hashlib

import pytest

from av2tsam_cli.hub.locate import TOKENIZER_FILES, part_name, place
from av2tsam_cli.hub.registry import HEARING, MODELS, NamedModel, size_text
from av2tsam_cli.model.config import PRESETS

ENTRIES = pytest.mark.parametrize("entry", MODELS.values(), ids=list(MODELS))


@pytest.mark.parametrize("name", ["nano", *HEARING])
def test_every_part_of_a_network_is_in_its_file_or_in_one_that_it_needs(name: str) -> None:
    entry = MODELS[name]
    config = PRESETS[entry.preset or ""]
    rest = {"clip", "clap", "text_sam"} - set(entry.parts)
    assert {part_name(config, part) for part in rest} <= set(entry.needs)
    assert all(MODELS[part_name(config, part)].parts == (part,) for part in rest)


@ENTRIES
def test_what_a_model_needs_needs_nothing_more(entry: NamedModel) -> None:
    assert all(not MODELS[name].needs for name in entry.needs)


@ENTRIES
def test_it_is_known_where_a_model_is_from_and_what_of_that_is_unsure(entry: NamedModel) -> None:
    assert (entry.repository is None) == (entry.name == "nano")
    if entry.repository and (entry.file is None or entry.size is None):
        assert entry.unverified


def test_nanos_checksum_is_that_of_the_file_in_the_package() -> None:
    # Where nano was made anew: put the new checksum into the registry.
    digest = hashlib.sha256(place("nano").read_bytes()).hexdigest()
    assert MODELS["nano"].sha256 == digest


def test_the_installed_tokenizer_is_looked_for() -> None:
    assert place("beit3-tokenizer").name in TOKENIZER_FILES


def test_the_best_comes_first() -> None:
    assert HEARING == ("evf-sam2", "evf-sam")


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
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text
