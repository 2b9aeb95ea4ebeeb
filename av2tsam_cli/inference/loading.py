"""A model, from its name or path to a network that is ready to run on a device."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch

from av2tsam_cli.hub import checkpoint, locate
from av2tsam_cli.inference.device import (
    PRECISIONS,
    choose_device,
    choose_precision,
    own_threads,
)
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.cpu import cpu_capabilities
from av2tsam_cli.model.packed import can_pack, pack
from av2tsam_cli.model.text import Tokenizer, tokenizer_for

PARTS = checkpoint.MODEL_PARTS
"""Parts of a network; listening needs all."""
TEXT_PARTS = ("text_sam",)
"""Parts of a network that looking for a written phrase needs."""
LIGHT_PARAMETERS = 50_000_000
"""A network below this many parameters leaves time to decode and encode beside it."""
_BATCH = {"cpu": (4, 1), "cuda": (32, 8), "mps": (8, 2)}
"""Frames per batch by kind of device: for a light network, for a full-size one."""
WORTH_COMPILING = {"cpu": (20_000, None), "cuda": (3000, 300), "mps": (3000, 300)}
"""Frames from which compiling pays by kind of device: a light network, a full-size one. None: it
never does, packed weights are faster."""


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to run."""

    network: Av2tSam = field(repr=False)
    """The network, in evaluation mode, on the device."""
    name: str
    """Name in the registry, or the checkpoint's path."""
    path: Path
    """The checkpoint."""
    device: torch.device
    """Where it runs."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    compiled_for: int | None = None
    """Frames of the batches that the network was compiled for; None where it was not."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns a written phrase into this network's token ids.

        Raises:
            WeightsError: If its file is needed and is not there.
        """
        config = self.network.config
        file = None if config.words else locate.tokenizer_file(self.path)
        return tokenizer_for(config, file)

    @property
    def hears(self) -> bool:
        """Whether it was loaded with what listening needs, and not for written phrases only."""
        return not next(self.network.projector.parameters()).is_meta

    @cached_property
    def light(self) -> bool:
        """Whether a frame takes milliseconds on a CPU rather than seconds."""
        return is_light(self.network)

    @property
    def batch_size(self) -> int:
        """Frames per batch where none were asked for."""
        small, large = _BATCH[self.device.type]
        most = small if self.light else large
        if self.device.type != "cuda":
            return most
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(most, free // self._frame_bytes))

    @property
    def _frame_bytes(self) -> int:
        """About what one frame takes on the way through the image encoder's widest block."""
        sam = self.network.config.sam
        side = sam.grid if sam.kind == "sam" else sam.image_size // 4
        # Input, queries, keys, values, answers, hidden layer twice; and room for what is reused.
        return 20 * side**2 * sam.dim * PRECISIONS[self.precision].itemsize

    @property
    def worth_compiling(self) -> int | None:
        """Frames from which compiling it pays; None: however many there are, it does not."""
        light, full = WORTH_COMPILING[self.device.type]
        return light if self.light else full

    @property
    def cpu_threads(self) -> int:
        """CPU threads for the network: a light one leaves half of the cores to the codecs."""
        cores = os.cpu_count() or 1
        return max(1, cores // 2) if self.light else cores


def is_light(network: torch.nn.Module) -> bool:
    """Whether a network is small, by its parameters; packed ones (buffers) count as well."""
    weights = chain(network.parameters(), network.buffers())
    return sum(weight.numel() for weight in weights) < LIGHT_PARAMETERS


def load_model(
    model: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    parts: Collection[str] = PARTS,
    packed: bool = True,
) -> LoadedModel:
    """Load a model by name or path; by default the best one that is installed.

    Args:
        model: A name that `av2tsam models list` shows, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        parts: The parts that will be used; `TEXT_PARTS` are enough to look for written phrases.
        packed: Whether weights are packed as `pack_weights` does; not where the network is to be
            compiled, for the compiler has its own way with them.

    Raises:
        UsageError: The device or the precision is not to be had here.
        WeightsError: The checkpoint is missing, damaged or of another architecture.
    """
    place = choose_device(device)
    chosen = choose_precision(precision, place)
    path = locate.resolve(model, needs_audio="projector" in parts)
    # A thread that once computed in parallel keeps its workers. With those and the network's own
    # there would be more than cores, and OpenMP's threads would then sleep at every barrier.
    with own_threads(1):
        network = checkpoint.load_network(path, place, PRECISIONS[chosen], parts=parts)
        name = network.config.name if model is None else str(model)
        loaded = LoadedModel(network=network, name=name, path=path, device=place, precision=chosen)
        if packed:
            pack_weights(loaded)
    return loaded


def pack_weights(model: LoadedModel) -> None:
    """Lay the weights of the large encoders out as a CPU multiplies them, in bf16; in place."""
    if model.device.type == "cpu" and can_pack(cpu_capabilities()):
        pack(model.network.text_sam.image_encoder)
        pack(model.network.text_sam.beit3)
