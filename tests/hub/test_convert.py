"""Converting published checkpoints: every name at full size, every value for a tiny network."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap_text import build_clap_text
from av2tsam_cli.embeddings.clip_text import ClipText
from av2tsam_cli.embeddings.text import TextConfig
from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.checkpoint import load_network, write_tensors
from av2tsam_cli.hub.convert import check_fit, convert, rename_tensors, restore_buffers
from av2tsam_cli.hub.layouts import Layout, recognise
from av2tsam_cli.hub.tensor_file import TensorFile
from av2tsam_cli.inference.loading import load_model, load_phrase_embedder
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import (
    EVF_SAM,
    EVF_SAM2,
    LAION_CLAP,
    MICROSOFT_CLAP,
    ModelConfig,
)

from ..real_set import PUBLISHED_NAMES
from ..tiny import TINY, TINY_TEXT, reference_state, shake, tiny_bpe
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


def test_masks_and_index_buffers_may_be_floats_or_missing() -> None:
    """Microsoft's file holds floating-point numbers only."""
    for absent in ("", "relative_position_index", "num_batches_tracked", ".attn.bias"):
        state = public_list("microsoft_clap")
        kept = {k: t for k, t in state.items() if not absent or not k.endswith(absent)}
        assert not absent or len(kept) < len(state)
        tensors, _ = rename_tensors(Path(), kept, _layout(kept))
        restored = restore_buffers(tensors, EVF_SAM2, _layout(kept).parts)
        check_fit(Path(), restored, EVF_SAM2, _layout(kept).parts)
        index = restored["clap.htsat.layers.0.blocks.0.attn.relative_position_index"]
        assert index.dtype == torch.int64


def test_memory_of_sam_2_is_kept_for_later() -> None:
    state = public_list("av2t_evf_sam2")
    tensors, skipped = rename_tensors(Path(), state, _layout(state))
    memory = {name: tensor for name, tensor in tensors.items() if name.startswith("memory.")}
    size = sum(tensor.numel() for tensor in memory.values())
    assert size == pytest.approx(7.5e6, rel=0.05)  # attention, encoder and object pointers
    assert set(skipped) == {"only used in BEiT-3's pre-training"}


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("laion_clap", ("position_ids", "transform.sequential", "branch.head.")),
        ("microsoft_clap", (".attn.bias", "htsat.head.")),
        ("openai_clip", ()),
    ],
)
def test_nothing_of_the_text_encoders_is_dropped(name: str, dropped: tuple[str, ...]) -> None:
    state = public_list(name)
    _, skipped = rename_tensors(Path(), state, _layout(state))
    assert skipped.total() == sum(any(part in key for part in dropped) for key in state)


def _layout(state: Mapping[str, Tensor]) -> Layout:
    layout = recognise(state)
    assert layout is not None
    return layout


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
    has_memory = tiny_network.config.sam.kind == "sam2"
    assert report.parts == ((*parts, "memory") if has_memory else parts)
    assert ("memory.memory_encoder.pix_feat_proj.weight" in TensorFile(out).tensors) == has_memory
    loaded = load_network(out, parts=parts).state_dict()
    for name, tensor in tiny_network.state_dict().items():
        if name.startswith(parts):
            assert torch.equal(loaded[name], tensor), name


def test_files_of_mixed_precision_are_accepted(tiny_network: Av2tSam, tmp_path: Path) -> None:
    """EVF-SAM 2's file holds SAM 2 in 16 bits and BEiT-3 in 32."""
    source, out = tmp_path / "reference.safetensors", tmp_path / "converted.safetensors"
    state = reference_state(tiny_network)
    save_file({n: t.half() if "visual_model" in n else t for n, t in state.items()}, source)
    convert(source, out, config=tiny_network.config)
    assert {info.dtype for info in TensorFile(out).tensors.values()} == {"F16", "F32"}
    parts = ("projector", "adapter", "text_sam")
    loaded = load_network(out, dtype=torch.float32, parts=parts).text_sam
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, parameter in tiny_network.text_sam.named_parameters():
        torch.testing.assert_close(loaded.state_dict()[name], parameter, rtol=1e-3, atol=1e-4)


TEXT_CLAP = dataclasses.replace(TINY.clap, text=TINY_TEXT)
TEXT_CLIP = dataclasses.replace(
    TINY.clip, text=TextConfig(vocabulary_size=49_408, positions=77, dim=16, layers=1, heads=2)
)
MODELS = {"laion": "clap-laion", "microsoft": "clap-microsoft", "clip": "clip-vit-b-32"}
"""The model that each kind of file becomes."""

COMPUTED = {
    "laion": {"module.text_branch.embeddings.position_ids": torch.arange(96)[None]},
    "microsoft": {"caption_encoder.base.h.0.attn.bias": torch.ones(1, 1, 96, 96)},
    "clip": {},
}
"""What the published files contain besides."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed models with the tokenizers of CLAP's text encoders."""
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    (tmp_path / "roberta-tokenizer.bpe").write_bytes(tiny_bpe("roberta"))
    (tmp_path / "gpt2-tokenizer.bpe").write_bytes(tiny_bpe("gpt2"))
    return tmp_path


def published_name(name: str, kind: str) -> str | None:
    """Return the published name of a tensor of CLAP or CLIP; None for another part."""
    for old, new in PUBLISHED_NAMES[MODELS[kind]]:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None


@pytest.mark.parametrize("kind", ["laion", "microsoft", "clip"])
def test_text_encoders_are_converted_and_loaded_on_demand(kind: Any, home: Path) -> None:
    """From a published file to embeddings; loading the network reads nothing of the text side."""
    encoder: Literal["clip", "clap"] = "clip" if kind == "clip" else "clap"
    clap = TEXT_CLAP if kind == "clip" else dataclasses.replace(TEXT_CLAP, kind=kind)
    config = dataclasses.replace(TINY, clap=clap, clip=TEXT_CLIP)
    text: Any = ClipText(TEXT_CLIP) if kind == "clip" else build_clap_text(clap)
    shake(text.eval())
    tensors = build(config).state_dict() | text.state_dict(prefix=f"{encoder}_text.")
    names = {name: published_name(name, kind) for name in tensors}
    published = {new: tensors[name] for name, new in names.items() if new is not None}
    torch.save(published | COMPUTED[kind], home / "published.pth")
    path = home / f"{'clip-vit-b-32' if kind == 'clip' else f'clap-{kind}'}.safetensors"
    report = convert(home / "published.pth", path, config=config)
    assert report.parts == (encoder, f"{encoder}_text")

    assert load_network(path, parts=(encoder,)).config == config
    embedder = load_phrase_embedder(path, encoder)
    phrases = ["a dog barking", "bell"]
    with torch.inference_mode():
        expected = nn.functional.normalize(text(embedder.tokenizer(phrases)), dim=1)
    torch.testing.assert_close(embedder(phrases), expected)
    assert embedder.scale == pytest.approx(float(text.logit_scale.detach().exp()))


def test_a_checkpoint_finds_the_text_encoder_in_the_file_of_its_part(home: Path) -> None:
    config = dataclasses.replace(TINY, clap=TEXT_CLAP)
    state = build(config).state_dict()
    clap = {name: tensor for name, tensor in state.items() if name.startswith("clap.")}
    text = build_clap_text(TEXT_CLAP).state_dict(prefix="clap_text.")
    write_tensors(clap | text, home / "clap-laion.safetensors", config)
    # A checkpoint of an earlier version, whose configuration mentions no text encoder.
    rest = {name: tensor for name, tensor in state.items() if name not in clap}
    write_tensors(rest, home / "mine.safetensors", TINY)
    model = load_model(home / "mine.safetensors", device="cpu")
    assert model.phrase_embedder("clap")(["dog"]).shape == (1, config.clap.embed_dim)
    with pytest.raises(WeightsError, match=r"mine\.safetensors: contains no text encoder"):
        model.phrase_embedder("clip")


def test_a_missing_or_wrong_tokenizer_is_an_error(home: Path) -> None:
    config = dataclasses.replace(TINY, clap=TEXT_CLAP)
    path = home / "clap-laion.safetensors"
    write_tensors(build_clap_text(TEXT_CLAP).state_dict(prefix="clap_text."), path, config)
    (home / "roberta-tokenizer.bpe").write_bytes(tiny_bpe("gpt2"))
    with pytest.raises(WeightsError, match="the tokenizer of gpt2, not of roberta"):
        load_phrase_embedder(path, "clap")
    (home / "roberta-tokenizer.bpe").unlink()
    with pytest.raises(WeightsError, match=r"'av2tsam models pull roberta-tokenizer'"):
        load_phrase_embedder(path, "clap")


def test_a_damaged_text_encoder_is_an_error(home: Path) -> None:
    config = dataclasses.replace(TINY, clap=TEXT_CLAP)
    path = home / "clap-laion.safetensors"
    state = build_clap_text(TEXT_CLAP).state_dict(prefix="clap_text.")
    del state["clap_text.projection.0.bias"]
    write_tensors(state, path, config)
    with pytest.raises(WeightsError, match=r"clap_text are missing \(clap_text\.projection\.0"):
        load_phrase_embedder(path, "clap")
    write_tensors(state | {"clap_text.other": torch.zeros(1)}, path, config)
    with pytest.raises(WeightsError, match=r"not part of the network \(clap_text\.other"):
        load_phrase_embedder(path, "clap")


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
