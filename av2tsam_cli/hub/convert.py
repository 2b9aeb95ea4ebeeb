"""Public checkpoints to ours, strictly: every tensor is used or named as not needed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import write_tensors
from av2tsam_cli.hub.layouts import Layout, recognise
from av2tsam_cli.hub.source import read_state
from av2tsam_cli.model.av2tsam import build_empty
from av2tsam_cli.model.config import (
    EVF_SAM,
    EVF_SAM2,
    EVF_SAM2_TINY,
    LAION_CLAP,
    MICROSOFT_CLAP,
    ModelConfig,
    ProjectorKind,
)

# How many names an error line shows.
SHOWN = 3


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    source: str
    """What the source was recognised as."""
    name: str
    """Name under which its file is looked for."""
    preset: str
    """The preset that it fits."""
    parts: tuple[str, ...]
    """Parts of the network that are in the result."""
    used: int
    """Tensors taken over."""
    unneeded: Mapping[str, int]
    """Tensors left out, counted by the reason."""

    def __str__(self) -> str:
        left_out = "".join(f"\n  left out {n}: {why}" for why, n in self.unneeded.items())
        return (
            f"{self.source}, as {self.name}: {self.used} tensors for "
            f"{', '.join(self.parts)}{left_out}"
        )


@dataclass(frozen=True)
class Conversion:
    """A public checkpoint that was found to fit, under our names, still in its own file."""

    tensors: Mapping[str, Tensor] = field(repr=False)
    """By our names, memory-mapped where the source's format allows it."""
    config: ModelConfig
    """Sizes of the network that they fit."""
    report: ConversionReport
    """What was recognised, used and left out."""

    def write(self, out: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the file that `load_model` reads, as `checkpoint.write_tensors` does."""
        write_tensors(self.tensors, out, self.config, dtype=dtype)


def convert(
    source: Path,
    out: Path,
    *,
    config: ModelConfig | None = None,
    projector: ProjectorKind = "mul",
    dtype: torch.dtype | None = None,
) -> ConversionReport:
    """Convert one public checkpoint to a file that `load_model` reads.

    Args:
        source: What `source.read_state` reads.
        out: A `.safetensors` file.
        config: Sizes of the network; None recognises a full-size preset by names and shapes.
        projector: Which embeddings a reference checkpoint was trained on. Its weights do not tell.
        dtype: Of the stored weights; None keeps the source's.

    Raises:
        WeightsError: If the source is damaged, of an unknown kind, or does not fit exactly.
    """
    conversion = prepare(source, config=config, projector=projector)
    conversion.write(out, dtype=dtype)
    return conversion.report


def prepare(
    source: Path, *, config: ModelConfig | None = None, projector: ProjectorKind = "mul"
) -> Conversion:
    """Recognise and check one public checkpoint; nothing is written, and hardly anything read.

    Raises:
        WeightsError: If the source is damaged, of an unknown kind, or does not fit exactly.
    """
    state = read_state(source)
    layout = recognise(state)
    if layout is None:
        raise WeightsError(
            f"{source}: none of the checkpoints that are known (its first tensor is "
            f"{next(iter(state), 'absent')})"
        )
    tensors, unneeded = rename(source, state, layout)
    fitting = config or replace(_preset(source, tensors, layout), projector=projector)
    parts = tuple(part for part in layout.parts if part != "adapter" or fitting.adapter)
    check_fit(source, tensors, fitting, parts)
    name = locate.part_name(fitting, parts[0])
    report = ConversionReport(layout.name, name, fitting.name, parts, len(tensors), dict(unneeded))
    return Conversion(tensors, fitting, report)


def rename(
    source: Path, state: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], Counter[str]]:
    """Our names for the tensors that are needed, and a count of the rest by reason.

    Raises:
        WeightsError: If a tensor is of no known use.
    """
    tensors: dict[str, Tensor] = {}
    unneeded: Counter[str] = Counter()
    strangers: list[str] = []
    for name, tensor in state.items():
        rule = layout.rule_for(name)
        if rule is None:
            strangers.append(name)
        elif rule.target is None:
            unneeded[rule.why] += 1
        else:
            tensors[rule.target] = tensor
    if strangers:
        raise WeightsError(
            f"{source}: {len(strangers)} tensors are not part of {layout.name}: {_some(strangers)}"
        )
    return tensors, unneeded


def check_fit(
    source: Path, tensors: Mapping[str, Tensor], config: ModelConfig, parts: tuple[str, ...]
) -> None:
    """Every tensor of those parts is there with its shape, and no other.

    Raises:
        WeightsError: Naming the first few that do not fit.
    """
    expected = expected_shapes(config, parts)
    problems = [
        ("missing", sorted(expected.keys() - tensors.keys())),
        ("not expected", sorted(tensors.keys() - expected.keys())),
        (
            "of another shape",
            [
                f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
                for name, shape in sorted(expected.items())
                if name in tensors and tensors[name].shape != shape
            ],
        ),
    ]
    said = [f"{len(names)} tensors {what}: {_some(names)}" for what, names in problems if names]
    if said:
        raise WeightsError(f"{source}: does not fit {config.name}: {'; '.join(said)}")


def expected_shapes(config: ModelConfig, parts: tuple[str, ...]) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of some parts of a network; nothing is allocated."""
    state = build_empty(config).state_dict()
    return {name: t.shape for name, t in state.items() if name.split(".")[0] in parts}


def _preset(source: Path, tensors: Mapping[str, Tensor], layout: Layout) -> ModelConfig:
    """The full-size network that the tensors belong to, told by a few of their shapes."""
    if layout.parts == ("clap",):
        clap = LAION_CLAP if "clap.projection.0.weight" in tensors else MICROSOFT_CLAP
        return replace(EVF_SAM2, clap=clap)
    if layout.parts == ("clip",):
        return EVF_SAM2
    config = _sam_preset(source, tensors)
    if "projector.audio_proj.weight" not in tensors:
        return config
    laion = tensors["projector.audio_proj.weight"].shape[-1] == LAION_CLAP.embed_dim
    return replace(
        config,
        clap=LAION_CLAP if laion else MICROSOFT_CLAP,
        adapter=any(name.startswith("adapter.") for name in tensors),
    )


def _sam_preset(source: Path, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """The preset whose image encoder begins with patches of the same width."""
    patches = {
        "text_sam.image_encoder.patch_embed.proj.bias": (EVF_SAM,),
        "text_sam.image_encoder.backbone.patch_embed.projection.bias": (EVF_SAM2, EVF_SAM2_TINY),
    }
    for name, configs in patches.items():
        for config in configs:
            if name in tensors and tensors[name].shape == (config.sam.dim,):
                return config
    raise WeightsError(f"{source}: its image encoder is none of the presets'")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
