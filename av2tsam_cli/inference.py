"""A model on a device: from frames, and one-second windows or a phrase, to mask logits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.model import checkpoint, weights
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.prediction import select
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.model.text import Tokenizer, tokenizer_for
from av2tsam_cli.values import AudioWindow, UInt8Array

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_PARTS = ("text_sam",)
"""Parts of a network that looking for a written phrase needs."""
LIGHT_PARAMETERS = 50_000_000
"""A network below this many parameters leaves time to decode and encode beside it."""
_BATCH = {"cpu": (4, 1), "cuda": (32, 8), "mps": (8, 2)}
"""Frames per batch by kind of device: for a light network, for a full-size one."""


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

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns a written phrase into this network's token ids.

        Raises:
            WeightsError: If its file is needed and is not there.
        """
        return tokenizer_for(self.network.config, self.path)

    @property
    def light(self) -> bool:
        """Whether a frame takes milliseconds on a CPU rather than seconds."""
        return sum(p.numel() for p in self.network.parameters()) < LIGHT_PARAMETERS

    @property
    def batch_size(self) -> int:
        """Frames per batch where none were asked for."""
        small, large = _BATCH[self.device.type]
        return small if self.light else large

    @property
    def cpu_threads(self) -> int:
        """CPU threads for the network: a light one leaves half of the cores to the codecs."""
        cores = os.cpu_count() or 1
        return max(1, cores // 2) if self.light else cores


@dataclass(frozen=True)
class FrameInputs:
    """What the network needs of B frames; sizes are those of its preset."""

    sam: torch.Tensor = field(repr=False)
    """(B, 3, S, S)."""
    beit: torch.Tensor = field(repr=False)
    """(B, 3, b, b)."""
    clip: torch.Tensor | None = field(repr=False)
    """(B, 3, c, c); None where a phrase is looked for."""


def choose_device(wanted: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `mps` into a device.

    Raises:
        UsageError: The device that was asked for is not here.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(kind for kind, here in present.items() if here))
    if not present.get(wanted, False):
        here = ", ".join(kind for kind, is_here in present.items() if is_here)
        raise UsageError(f"--device {wanted}: not available here; use auto or one of: {here}")
    return torch.device(wanted)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Turn `auto` into the precision that is fast and safe on the device.

    Raises:
        UsageError: The device cannot run the precision that was asked for.
    """
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if fast else "fp32"
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision {wanted}: use auto or one of: {', '.join(PRECISIONS)}")
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: not on the CPU; use bf16 or fp32")
    return wanted


def load_model(
    model: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    parts: Collection[str] = checkpoint.PARTS,
) -> LoadedModel:
    """Load a model by name or path; by default the best one that is installed.

    Args:
        model: A name that `av2tsam models list` shows, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        parts: The parts that will be used; `TEXT_PARTS` are enough to look for written phrases.

    Raises:
        UsageError: The device or the precision is not to be had here.
        WeightsError: The checkpoint is missing, damaged or of another architecture.
    """
    place = choose_device(device)
    chosen = choose_precision(precision, place)
    path = weights.resolve(model, hears="projector" in parts)
    network = checkpoint.load_model(path, place, PRECISIONS[chosen], parts=parts)
    name = network.config.name if model is None else str(model)
    return LoadedModel(network=network, name=name, path=path, device=place, precision=chosen)


class Segmenter:
    """Runs a model over one video: CLAP once per window, everything else once per frame.

    With a phrase nothing is heard: the phrase is embedded once and looked for in every frame.
    """

    def __init__(self, model: LoadedModel, text: str | None = None) -> None:
        if text is None and next(model.network.projector.parameters()).is_meta:
            raise WeightsError(f"{model.name}: was loaded for written phrases only; give it a text")
        self.model = model
        self._phrase = None if text is None else self._embed_text(text)
        self._heard: tuple[AudioWindow, torch.Tensor] | None = None

    @property
    def rate_hz(self) -> int:
        """Samples per second of the windows that the model hears."""
        return int(self.model.network.clap.config.rate_hz)

    def prepare(self, frames: Sequence[UInt8Array]) -> FrameInputs:
        """Shrink B frames to the network's sizes; on a GPU where the model is on one.

        Args:
            frames: Pixels, uint8, (H, W, 3), RGB, all of one size.
        """
        network = self.model.network
        source_size = network.config.source_size
        if source_size is not None:
            frames = [squash(frame, source_size) for frame in frames]
        pixels = torch.from_numpy(np.stack(frames)).to(self.model.device)
        pixels = pixels.permute(0, 3, 1, 2)  # (B, 3, H, W)
        sam, beit = network.prepare(pixels)
        clip = network.clip.preprocess(pixels) if self._phrase is None else None
        return FrameInputs(sam=sam, beit=beit, clip=clip)

    def logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> torch.Tensor:
        """Mask logits (B, 1, h, w) of B frames.

        Args:
            inputs: From `prepare`.
            windows: The window that each of the B frames falls into; none where a phrase is
                looked for.
        """
        network = self.model.network
        with torch.inference_mode():
            if self._phrase is not None:
                return network.segment_text(inputs.sam, inputs.beit, self._phrase)
            prediction = network(
                inputs.sam,
                inputs.beit,
                network.clip(inputs.clip),
                self._embed(windows),
            )
            return select(prediction)

    def _embed_text(self, text: str) -> torch.Tensor:
        """Word embeddings (1, L, D) of a phrase."""
        ids = self.model.tokenizer(text).to(self.model.device)
        with torch.inference_mode():
            return self.model.network.embed_text(ids)

    def _embed(self, windows: Sequence[AudioWindow]) -> torch.Tensor:
        """CLAP embeddings (B, A) of the windows; each window goes through CLAP only once."""
        # By identity: another video has windows of the same indices.
        known = {} if self._heard is None else {id(self._heard[0]): self._heard[1]}
        fresh = {id(w): w.samples for w in windows if id(w) not in known}
        if fresh:
            samples = torch.from_numpy(np.stack(list(fresh.values()))).to(self.model.device)
            known |= zip(fresh, self.model.network.embed_windows(samples), strict=True)
        self._heard = (windows[-1], known[id(windows[-1])])
        return torch.stack([known[id(window)] for window in windows])


@contextlib.contextmanager
def own_threads(count: int) -> Generator[None, None, None]:
    """Give PyTorch `count` CPU threads on the calling thread, so that stages share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
