"""Public checkpoints become ours: key by key at full size, and number by number when tiny."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.checkpoint import load_model
from av2tsam_cli.model.config import (
    EVF_SAM,
    EVF_SAM2,
    LAION_CLAP,
    MICROSOFT_CLAP,
    ModelConfig,
    Sam2Config,
)
from av2tsam_cli.model.convert import check_fit, convert, rename
from av2tsam_cli.model.layouts import recognise

from .public_lists import public_list

# From our names to the reference's, for a tiny network: the way back, written independently.
COMMON = (
    (r"^text_sam\.beit3\.", "model.mm_extractor.beit3."),
    (r"^text_sam\.text_hidden_fcs\.", "model.text_hidden_fcs."),
    (r"^adapter\.shared\.", "audio_prompt_generator.shared_mlp."),
    (r"^adapter\.blocks\.(\d+)\.", r"audio_prompt_generator.lightweight_mlp_\1."),
)
TO_SAM1 = (*COMMON, (r"^text_sam\.", "model.visual_model."))
TO_SAM2 = (
    *COMMON,
    (r"^text_sam\.image_encoder\.no_mem_embed", "model.visual_model.no_mem_embed"),
    (
        r"^text_sam\.image_encoder\.neck\.(\d)",
        r"model.visual_model.image_encoder.neck.convs.\1.conv",
    ),
    (r"^text_sam\.image_encoder\.backbone\.", "model.visual_model.image_encoder.trunk."),
    (r"trunk\.patch_embed\.projection\.", "trunk.patch_embed.proj."),
    (r"(trunk.*)layer_norm(\d)", r"\1norm\2"),
    (r"(trunk.*)mlp\.proj_in", r"\1mlp.layers.0"),
    (r"(trunk.*)mlp\.proj_out", r"\1mlp.layers.1"),
    (r"^text_sam\.mask_decoder\.(.*)mlp\.lin1", r"text_sam.mask_decoder.\1mlp.layers.0"),
    (r"^text_sam\.mask_decoder\.(.*)mlp\.lin2", r"text_sam.mask_decoder.\1mlp.layers.1"),
    (r"^text_sam\.(mask_decoder|prompt_encoder)\.", r"model.visual_model.sam_\1."),
)


def reference_state(model: Av2tSam) -> dict[str, Tensor]:
    """The network's weights as `AVTSAM.state_dict()` would name them, and what we do not need."""
    rules = TO_SAM2 if isinstance(model.config.sam, Sam2Config) else TO_SAM1
    state = {"model.mm_extractor.beit3.vision_embed.mask_token": torch.zeros(1, 1, 16)}
    if rules is TO_SAM2:
        state["model.visual_model.memory_encoder.pix_feat_proj.weight"] = torch.zeros(1)
    for name, tensor in model.state_dict().items():
        if name.startswith(("clip.", "clap.")):
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - rewritten step by step
        state[name] = tensor.contiguous()
    return state


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
def test_every_public_tensor_has_a_place_or_a_reason(
    name: str, config: ModelConfig, count: int | None
) -> None:
    state = public_list(name)
    assert count is None or len(state) == count
    layout = recognise(state)
    assert layout is not None
    tensors, unneeded = rename(Path(name), state, layout)
    assert len(tensors) + unneeded.total() == len(state)
    check_fit(Path(name), tensors, config, layout.parts)


def test_an_evf_checkpoint_is_the_same_without_the_first_word() -> None:
    for name, config in (("av2t_evf_sam", EVF_SAM), ("av2t_evf_sam2", EVF_SAM2)):
        state = {
            key.removeprefix("model."): tensor
            for key, tensor in public_list(name).items()
            if key.startswith("model.")
        }
        layout = recognise(state)
        assert layout is not None
        assert layout.parts == ("text_sam",)
        check_fit(Path(name), rename(Path(name), state, layout)[0], config, layout.parts)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_weights_arrive_where_they_belong(
    tiny_model: Av2tSam, tmp_path: Path, suffix: str
) -> None:
    source, out = tmp_path / f"reference{suffix}", tmp_path / "ours.safetensors"
    state = reference_state(tiny_model)
    if suffix == ".pth":
        torch.save(state, source)
    else:
        save_file(state, source)
    report = convert(source, out, config=tiny_model.config)
    assert "left out 1: BEiT-3's pre-training" in str(report)
    parts = ("projector", "adapter", "text_sam")
    assert report.parts == parts
    loaded = load_model(out, parts=parts).state_dict()
    for name, tensor in tiny_model.state_dict().items():
        if name.startswith(parts):
            assert torch.equal(loaded[name], tensor), name


def test_16_bit_weights_stay_16_bits(tiny_model: Av2tSam, tmp_path: Path) -> None:
    source, out = tmp_path / "reference.bin", tmp_path / "ours.safetensors"
    torch.save({k: v.half() for k, v in reference_state(tiny_model).items()}, source)
    convert(source, out, config=tiny_model.config)
    parts = ("projector", "adapter", "text_sam")
    assert load_model(out, parts=parts).projector.audio_proj.weight.dtype == torch.float16
    as_asked = load_model(out, dtype=torch.float32, parts=parts)
    assert as_asked.projector.audio_proj.weight.dtype == torch.float32


@pytest.mark.parametrize("damage", ["missing", "stranger", "shape"])
def test_what_does_not_fit_exactly_is_refused(
    tiny_model: Av2tSam, tmp_path: Path, damage: str
) -> None:
    state = reference_state(tiny_model)
    name = "projector.audio_proj.bias"
    if damage == "missing":
        del state[name]
    elif damage == "stranger":
        name = "audio_prompt_generator.something_else.weight"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(3)
    source, out = tmp_path / "reference.safetensors", tmp_path / "ours.safetensors"
    save_file(state, source)
    with pytest.raises(WeightsError, match=name.removeprefix("audio_prompt_generator.")):
        convert(source, out, config=tiny_model.config)
    assert not out.exists()


def test_a_network_of_no_preset_is_refused(tiny_model: Av2tSam, tmp_path: Path) -> None:
    source = tmp_path / "reference.safetensors"
    save_file(reference_state(tiny_model), source)
    with pytest.raises(WeightsError, match="none of the presets"):
        convert(source, tmp_path / "ours.safetensors")


def test_an_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "other.safetensors"
    save_file({"backbone.weight": torch.zeros(2)}, source)
    with pytest.raises(WeightsError, match=r"backbone\.weight"):
        convert(source, tmp_path / "ours.safetensors")
