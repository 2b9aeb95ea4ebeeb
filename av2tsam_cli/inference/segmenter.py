"""Runs a model: from frames, and one-second windows or a phrase, to mask logits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from av2tsam_cli.errors import Av2tsamError, WeightsError
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.model.prediction import select
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.values import AudioWindow, UInt8Array

PIXELS_AT_ONCE = 1 << 23
"""Pixels of frames that are shrunk together: a batch of 4K frames would fill a GPU's memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameInputs:
    """What the network needs of B frames; sizes are those of its preset."""

    sam: torch.Tensor = field(repr=False)
    """(B, 3, S, S)."""
    beit: torch.Tensor = field(repr=False)
    """(B, 3, b, b)."""
    clip: torch.Tensor | None = field(repr=False)
    """(B, 3, c, c); None where a phrase is looked for."""

    def rows(self, start: int, stop: int, count: int) -> FrameInputs:
        """Frames start ... stop - 1, the last of them repeated to make `count`."""
        rows = torch.arange(start, start + count, device=self.sam.device).clamp_(max=stop - 1)
        clip = None if self.clip is None else self.clip[rows]
        return FrameInputs(sam=self.sam[rows], beit=self.beit[rows], clip=clip)


class Segmenter:
    """Runs a model over one video: CLAP once per window, everything else once per frame.

    With a phrase nothing is heard: the phrase is embedded once and looked for in every frame.
    """

    def __init__(self, model: LoadedModel, text: str | None = None) -> None:
        if text is None and not model.hears:
            raise WeightsError(f"{model.name}: was loaded for written phrases only; give it a text")
        self.model = model
        self.at_once = model.compiled_for
        """Most frames that go through the network together; None: as many as are given."""
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
        at_once = max(1, PIXELS_AT_ONCE // (frames[0].size // 3))
        parts = [
            self._prepare(frames[start : start + at_once])
            for start in range(0, len(frames), at_once)
        ]
        if len(parts) == 1:  # joining would copy it
            return parts[0]
        clip = [part.clip for part in parts if part.clip is not None]
        return FrameInputs(
            sam=torch.cat([part.sam for part in parts]),
            beit=torch.cat([part.beit for part in parts]),
            clip=torch.cat(clip) if clip else None,
        )

    def _prepare(self, frames: Sequence[UInt8Array]) -> FrameInputs:
        network = self.model.network
        source_size = network.config.source_size
        if source_size is not None:
            frames = [squash(frame, source_size) for frame in frames]
        pixels = torch.from_numpy(np.stack(frames))
        if self.model.device.type == "cuda":  # from pinned memory the copy waits for nobody
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.model.device, non_blocking=True).permute(0, 3, 1, 2)
        sam, beit = network.prepare(pixels)  # of pixels (B, 3, H, W)
        clip = network.clip.preprocess(pixels) if self._phrase is None else None
        return FrameInputs(sam=sam, beit=beit, clip=clip)

    def logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> torch.Tensor:
        """Mask logits (B, 1, h, w) of B frames.

        Where the device's memory is too small for all of them, half as many go at once from then
        on.

        Args:
            inputs: From `prepare`.
            windows: The window that each of the B frames falls into; none where a phrase is
                looked for.

        Raises:
            Av2tsamError: The memory is too small for a single frame.
        """
        made: list[torch.Tensor] = []
        start, count = 0, len(inputs.sam)
        while start < count:
            stop = min(count, start + (self.at_once or count))
            try:
                made.append(self._logits(inputs, windows, start, stop))
            except torch.OutOfMemoryError:
                self._halve(stop - start)
            else:
                start = stop
        return made[0] if len(made) == 1 else torch.cat(made)

    def _halve(self, size: int) -> None:
        """Go on with smaller batches than the `size` that did not fit."""
        if size == 1:
            raise Av2tsamError(
                f"{self.model.name}: the memory of {self.model.device} is too small for one frame; "
                "free some of it, or pass --device cpu"
            )
        self.at_once = size // 2
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory at %d frames a batch: going on with %d", size, self.at_once)

    def _logits(
        self, inputs: FrameInputs, windows: Sequence[AudioWindow], start: int, stop: int
    ) -> torch.Tensor:
        """Logits of frames start ... stop - 1."""
        network, padded = self.model.network, stop - start
        if self.at_once is not None and self.at_once == self.model.compiled_for:
            padded = self.at_once  # another shape would be compiled anew
        if (start, stop) != (0, len(inputs.sam)) or padded != stop - start:
            inputs = inputs.rows(start, stop, padded)
        with torch.inference_mode():
            if self._phrase is not None:
                logits = network.segment_text(inputs.sam, inputs.beit, self._phrase)
            else:
                heard = self._embed(windows[start:stop])
                rows = torch.arange(padded, device=heard.device).clamp_(max=stop - start - 1)
                seen = network.clip(inputs.clip)
                logits = select(network(inputs.sam, inputs.beit, seen, heard[rows]))
        return logits[: stop - start]

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
