"""The presets, their sizes and their JSON form."""

import json

import pytest

from av2tsam_cli.errors import WeightsError
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


@pytest.mark.parametrize("text", ["{}", "[1]", "nonsense", '{"sam": 3}'])
def test_invalid_configurations_are_errors(text: str) -> None:
    with pytest.raises(WeightsError, match="configuration"):
        ModelConfig.from_json(text)


def test_an_unknown_field_is_an_error() -> None:
    values = json.loads(PRESETS["nano"].to_json())
    values["beit3"]["something_new"] = 1
    with pytest.raises(WeightsError, match="something_new"):
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
