"""Converting published checkpoints: every name at full size, every value for a tiny network."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.convert import check_fit, convert, rename_tensors
from av2tsam_cli.hub.layouts import recognise
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import (
    EVF_SAM,
    EVF_SAM2,
    LAION_CLAP,
    MICROSOFT_CLAP,
    ModelConfig,
)

from ..tiny import reference_state
from .public_lists import public_list


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("av2t_evf_sam", EVF_SAM, 1643),
        ("av2t_evf_sam2", EVF_SAM2, 2075),
        ("laion_clap", dataclasses.replace(EVF_SAM2, clap=LAION_CLAP), None),
        ("microsoft_clap", dataclasses.replace(EVF_SAM2, clap=MICROSOFT_CLAP), None),
        ("openai_clip", EVF_SAM2, None),
    ],
)
def test_every_published_tensor_is_used_or_skipped_for_a_reason(
    name: str, config: ModelConfig, count: int | None
) -> None:
    state = public_list(name)
    assert count is None or len(state) == count
    layout = recognise(state)
    assert layout is not None
    tensors, skipped = rename_tensors(Path(name), state, layout)
    assert len(tensors) + skipped.total() == len(state)
    check_fit(Path(name), tensors, config, layout.parts)


def test_evf_checkpoint_has_the_same_names_without_the_prefix() -> None:
    for name, config in (("av2t_evf_sam", EVF_SAM), ("av2t_evf_sam2", EVF_SAM2)):
        state = {
            key.removeprefix("model."): tensor
            for key, tensor in public_list(name).items()
            if key.startswith("model.")
        }
        layout = recognise(state)
        assert layout is not None
        assert layout.parts == ("text_sam",)
        tensors, _ = rename_tensors(Path(name), state, layout)
        check_fit(Path(name), tensors, config, layout.parts)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_converted_weights_equal_the_published_ones(
    tiny_network: Av2tSam, tmp_path: Path, suffix: str
) -> None:
    source, out = tmp_path / f"reference{suffix}", tmp_path / "converted.safetensors"
    state = reference_state(tiny_network)
    if suffix == ".pth":
        torch.save(state, source)
    else:
        save_file(state, source)
    report = convert(source, out, config=tiny_network.config)
    assert "skipped 1: only used in BEiT-3's pre-training" in str(report)
    parts = ("projector", "adapter", "text_sam")
    assert report.parts == parts
    loaded = load_network(out, parts=parts).state_dict()
    for name, tensor in tiny_network.state_dict().items():
        if name.startswith(parts):
            assert torch.equal(loaded[name], tensor), name


def test_16_bit_weights_keep_their_type(tiny_network: Av2tSam, tmp_path: Path) -> None:
    source, out = tmp_path / "reference.bin", tmp_path / "converted.safetensors"
    torch.save({k: v.half() for k, v in reference_state(tiny_network).items()}, source)
    convert(source, out, config=tiny_network.config)
    parts = ("projector", "adapter", "text_sam")
    assert load_network(out, parts=parts).projector.audio_proj.weight.dtype == torch.float16
    converted = load_network(out, dtype=torch.float32, parts=parts)
    assert converted.projector.audio_proj.weight.dtype == torch.float32


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_checkpoint_that_does_not_fit_exactly_is_rejected(
    tiny_network: Av2tSam, tmp_path: Path, damage: str
) -> None:
    state = reference_state(tiny_network)
    name = "projector.audio_proj.bias"
    if damage == "missing":
        del state[name]
    elif damage == "unexpected":
        name = "audio_prompt_generator.something_else.weight"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(3)
    source, out = tmp_path / "reference.safetensors", tmp_path / "converted.safetensors"
    save_file(state, source)
    with pytest.raises(WeightsError, match=name.removeprefix("audio_prompt_generator.")):
        convert(source, out, config=tiny_network.config)
    assert not out.exists()


def test_network_of_unknown_size_is_rejected(tiny_network: Av2tSam, tmp_path: Path) -> None:
    source = tmp_path / "reference.safetensors"
    save_file(reference_state(tiny_network), source)
    with pytest.raises(WeightsError, match="image encoder is not supported"):
        convert(source, tmp_path / "converted.safetensors")


def test_unknown_checkpoint_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "other.safetensors"
    save_file({"backbone.weight": torch.zeros(2)}, source)
    with pytest.raises(WeightsError, match=r"backbone\.weight"):
        convert(source, tmp_path / "converted.safetensors")
