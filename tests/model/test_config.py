"""The presets, their sizes and their JSON form."""

import json

import pytest

from av2tsam_cli.model.av2tsam import build_empty
from av2tsam_cli.model.config import PRESETS, ModelConfig

# Millions of parameters of the parts of the reference's networks.
PUBLISHED = {
    "evf-sam": {
        "image_encoder": 637.0,
        "mask_decoder": 4.06,
        "beit3": 672.7,
        "text_hidden_fcs": 1.31,
        "projector": 2.63,
        "adapter": 9.06,
    },
    "evf-sam2": {
        "image_encoder": 212.7,
        "mask_decoder": 4.22,
        "beit3": 672.7,
        "text_hidden_fcs": 1.31,
        "projector": 2.63,
        "adapter": 26.1,
    },
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    assert ModelConfig.from_json(PRESETS[name].to_json()) == PRESETS[name]


@pytest.mark.parametrize("text", ["{}", "[1]", "nonsense", '{"sam": 3}', "[" * 100_000])
def test_invalid_configurations_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("beit3", "dim", 10**9),
        ("beit3", "depth", 10**6),
        ("beit3", "heads", 0),
        ("beit3", "vocabulary_size", 2**31),
        ("sam", "dim", 1.5),
        ("sam", "image_size", "x"),
        ("sam", "global_blocks", [[1]]),
        ("sam", "stem", "other"),
        ("clap", "depths", [1] * 1000),
        ("clap", "dim", 8192),
        ("clap", "window_size", 8192),
        ("clip", "layers", [1, 2]),
        ("clip", "patch_size", True),
    ],
)
def test_sizes_that_no_network_has_are_errors(part: str, name: str, value: object) -> None:
    values = json.loads(PRESETS["nano"].to_json())
    values[part][name] = value
    with pytest.raises(ValueError, match=r"is |too large"):
        ModelConfig.from_json(json.dumps(values))


def test_an_unknown_field_is_an_error() -> None:
    values = json.loads(PRESETS["nano"].to_json())
    values["beit3"]["something_new"] = 1
    with pytest.raises(ValueError, match="something_new"):
        ModelConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_full_networks_have_the_published_sizes(name: str) -> None:
    model = build_empty(PRESETS[name])
    parts = {**dict(model.text_sam.named_children()), **dict(model.named_children())}
    for part, millions in PUBLISHED[name].items():
        size = sum(p.numel() for p in parts[part].parameters()) / 1e6
        assert size == pytest.approx(millions, abs=0.05 if millions > 20 else 0.005), part


def test_the_trained_part_has_the_published_size() -> None:
    for name, millions in (("evf-sam", 17.1), ("evf-sam2", 34.3)):
        trained = sum(p.numel() for _, p in build_empty(PRESETS[name]).trained_parameters())
        assert trained / 1e6 == pytest.approx(millions, abs=0.05)
