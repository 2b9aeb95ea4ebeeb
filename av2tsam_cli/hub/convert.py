"""Convert published checkpoints strictly: every tensor is used, or skipped for a stated reason."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import (
    MEMORY_PART,
    TEXT_PARTS,
    build_empty_text,
    part_of,
    write_tensors,
)
from av2tsam_cli.hub.layouts import Layout, recognise
from av2tsam_cli.hub.source import read_state, some
from av2tsam_cli.model.av2tsam import SkipRandomInit, build_empty
from av2tsam_cli.model.config import (
    EVF_SAM,
    EVF_SAM2,
    EVF_SAM2_TINY,
    LAION_CLAP,
    MICROSOFT_CLAP,
    ModelConfig,
    ProjectorKind,
)


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion recognised, used and skipped."""

    source: str
    """Kind of checkpoint that was recognised."""
    name: str
    """Name under which its file is installed."""
    preset: str
    """Preset that it fits."""
    parts: tuple[str, ...]
    """Parts of the network in the result."""
    used: int
    """Number of converted tensors."""
    skipped: Mapping[str, int]
    """Number of skipped tensors by reason."""

    def __str__(self) -> str:
        skipped = "".join(f"\n  skipped {n}: {why}" for why, n in self.skipped.items())
        return (
            f"recognised {self.source} as {self.name}\n"
            f"  converted {self.used} tensors: {', '.join(self.parts)}{skipped}"
        )


@dataclass(frozen=True)
class Conversion:
    """A published checkpoint that was checked and renamed, but not written yet."""

    tensors: Mapping[str, Tensor] = field(repr=False)
    """Tensors by this tool's names, memory-mapped if the source's format allows it."""
    config: ModelConfig
    """Sizes of the network that they fit."""
    report: ConversionReport
    """What was recognised, used and skipped."""


def convert(
    source: Path,
    out: Path,
    *,
    config: ModelConfig | None = None,
    projector: ProjectorKind = "mul",
    dtype: torch.dtype | None = None,
) -> ConversionReport:
    """Convert a published checkpoint to a file that `load_model` reads.

    Args:
        source: A file or folder that `source.read_state` reads.
        out: A `.safetensors` file; an existing one is replaced.
        config: Sizes of the network; None recognises a full-size preset by names and shapes.
        projector: Embeddings that a checkpoint of the authors was trained on, which its weights do
            not show.
        dtype: Type of the stored floating-point weights; None keeps the source's.

    Raises:
        WeightsError: The source is corrupted, of an unknown kind, or does not fit exactly.
    """
    conversion = prepare_conversion(source, config=config, projector=projector)
    write_tensors(conversion.tensors, out, conversion.config, dtype=dtype)
    return conversion.report


def prepare_conversion(
    source: Path, *, config: ModelConfig | None = None, projector: ProjectorKind = "mul"
) -> Conversion:
    """Recognise, check and rename a published checkpoint, without writing anything.

    Raises:
        WeightsError: The source is corrupted, of an unknown kind, or does not fit exactly.
    """
    state = read_state(source)
    layout = recognise(state)
    if layout is None:
        raise WeightsError(
            f"{source}: unknown kind of checkpoint (its first tensor is "
            f"{next(iter(state), 'absent')}); 'av2tsam models list' shows the supported models"
        )
    tensors, skipped = rename_tensors(source, state, layout)
    parts = tuple(part for part in layout.parts if part not in TEXT_PARTS or _has(tensors, part))
    sizes = config or replace(_recognise_preset(source, tensors, layout), projector=projector)
    if not sizes.adapter:
        parts = tuple(part for part in parts if part != "adapter")
    if parts == ("clap",):  # a copy without the text encoder
        sizes = replace(sizes, clap=replace(sizes.clap, text=None))
    if parts == ("clip",):
        sizes = replace(sizes, clip=replace(sizes.clip, text=None))
    tensors = restore_buffers(tensors, sizes, parts)
    check_fit(source, tensors, sizes, parts)
    name = locate.part_name(sizes, parts[0])
    if _has(tensors, MEMORY_PART):
        parts = (*parts, MEMORY_PART)
    report = ConversionReport(layout.name, name, sizes.name, parts, len(tensors), dict(skipped))
    return Conversion(tensors, sizes, report)


def _has(tensors: Mapping[str, Tensor], part: str) -> bool:
    return any(part_of(name) == part for name in tensors)


def rename_tensors(
    source: Path, state: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], Counter[str]]:
    """Return the needed tensors by this tool's names, and the number of skipped ones by reason.

    Raises:
        WeightsError: The layout has no rule for a tensor.
    """
    tensors: dict[str, Tensor] = {}
    skipped: Counter[str] = Counter()
    unexpected: list[str] = []
    for name, tensor in state.items():
        rule = layout.rule_for(name)
        if rule is None:
            unexpected.append(name)
        elif (new_name := rule.rename(name)) is None:
            skipped[rule.reason] += 1
        else:
            tensors[new_name] = tensor
    if unexpected:
        raise WeightsError(
            f"{source}: {len(unexpected)} tensors are not part of {layout.name}: "
            f"{some(unexpected)}; pass the published file"
        )
    return tensors, skipped


def restore_buffers(
    tensors: Mapping[str, Tensor], config: ModelConfig, parts: tuple[str, ...]
) -> dict[str, Tensor]:
    """Add the computed buffers of HTSAT that a file leaves out, and restore their types.

    A file that stores floating-point numbers only has its index buffers as such.
    """
    restored = dict(tensors)
    if "clap" not in parts:
        return restored
    with SkipRandomInit(everywhere=True):
        clap = ClapEmbedder(config.clap)
    for name, buffer in clap.named_buffers(prefix="clap"):
        if re.search(r"\.(relative_position_index|attn_mask|num_batches_tracked)$", name):
            stored = tensors.get(name, buffer)
            if stored.shape == buffer.shape:  # others are reported by `check_fit`
                restored[name] = stored.to(buffer.dtype)
    return restored


def check_fit(
    source: Path, tensors: Mapping[str, Tensor], config: ModelConfig, parts: tuple[str, ...]
) -> None:
    """Check that the tensors are exactly those of some parts of a network, with their shapes.

    Tensors of `MEMORY_PART` are not checked: this tool keeps them, but does not use them yet.

    Raises:
        WeightsError: They are not; the message names the first few that do not fit.
    """
    expected = expected_shapes(config, parts)
    tensors = {name: each for name, each in tensors.items() if part_of(name) != MEMORY_PART}
    wrong_shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in tensors and tensors[name].shape != shape
    ]
    problems = {
        "are missing": sorted(expected.keys() - tensors.keys()),
        "are not expected": sorted(tensors.keys() - expected.keys()),
        "have another shape": wrong_shapes,
    }
    found = [
        f"{len(names)} tensors {what}: {some(names)}" for what, names in problems.items() if names
    ]
    if found:
        raise WeightsError(
            f"{source}: does not fit {config.name}: {'; '.join(found)}; pass the published file"
        )


def expected_shapes(config: ModelConfig, parts: tuple[str, ...]) -> dict[str, torch.Size]:
    """Return the names and shapes of the tensors of some parts of a network."""
    state = build_empty(config).state_dict()
    for part in TEXT_PARTS:
        if part in parts:
            state |= build_empty_text(config, part).state_dict(prefix=f"{part}.")
    return {name: tensor.shape for name, tensor in state.items() if part_of(name) in parts}


def _recognise_preset(source: Path, tensors: Mapping[str, Tensor], layout: Layout) -> ModelConfig:
    """Return the full-size network that the tensors belong to, judging by a few shapes."""
    if layout.parts[0] == "clap":
        clap = LAION_CLAP if "clap.projection.0.weight" in tensors else MICROSOFT_CLAP
        return replace(EVF_SAM2, clap=clap)
    if layout.parts[0] == "clip":
        return EVF_SAM2
    config = _recognise_sam(source, tensors)
    if "projector.audio_proj.weight" not in tensors:
        return config
    laion = tensors["projector.audio_proj.weight"].shape[-1] == LAION_CLAP.embed_dim
    return replace(
        config,
        clap=LAION_CLAP if laion else MICROSOFT_CLAP,
        adapter=any(part_of(name) == "adapter" for name in tensors),
    )


def _recognise_sam(source: Path, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Return the preset whose image encoder has patch embeddings of the same width."""
    patch_embeddings = {
        "text_sam.image_encoder.patch_embed.proj.bias": (EVF_SAM,),
        "text_sam.image_encoder.backbone.patch_embed.projection.bias": (EVF_SAM2, EVF_SAM2_TINY),
    }
    for name, configs in patch_embeddings.items():
        for config in configs:
            if name in tensors and tensors[name].shape == (config.sam.dim,):
                return config
    names = ", ".join(config.name for config in (EVF_SAM, EVF_SAM2, EVF_SAM2_TINY))
    raise WeightsError(
        f"{source}: the size of its image encoder is not supported; the supported ones are {names}"
    )
