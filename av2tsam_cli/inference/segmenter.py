"""Run a model: from frames, with one-second audio windows or a phrase, to mask logits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from av2tsam_cli.errors import Av2tsamError, UsageError, WeightsError
from av2tsam_cli.hub.locate import Use
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.timing import cut_at_changes
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.model.sam import best_mask
from av2tsam_cli.segment_options import Hear, Timing
from av2tsam_cli.values import AudioWindow, UInt8Array

PIXELS_PER_RESIZE = 1 << 23
"""Pixels to resize at once; a whole batch of 4K frames would fill a GPU's memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameInputs:
    """The network's inputs for B frames; the preset of the model determines their sizes."""

    sam: Tensor = field(repr=False)
    """Input of SAM's image encoder, (B, 3, S, S)."""
    beit: Tensor = field(repr=False)
    """Input of BEiT-3, (B, 3, b, b)."""
    clip: Tensor | None = field(repr=False)
    """Input of CLIP, (B, 3, c, c); None with a text prompt."""

    def slice(self, start: int, stop: int, count: int) -> FrameInputs:
        """Return frames start ... stop - 1; the last one is repeated to make `count` frames."""
        rows = torch.arange(start, start + count, device=self.sam.device).clamp_(max=stop - 1)
        clip = None if self.clip is None else self.clip[rows]
        return FrameInputs(sam=self.sam[rows], beit=self.beit[rows], clip=clip)


class Segmenter:
    """Runs a model on the frames of one video.

    CLAP runs once per audio window, everything else once per frame. With a text prompt, audio is
    not used: the phrase is embedded once for all frames.
    """

    USES: tuple[Use, ...] = ("trained",)
    """The values of `LoadedModel.use` that this class supports without a text prompt."""

    def __init__(self, model: LoadedModel, text: str | None = None) -> None:
        """Prepare a model for a video.

        Args:
            model: The model.
            text: The text prompt; None to segment the sound source.

        Raises:
            UsageError: The model does not support a word of the text.
            WeightsError: The model was loaded for another use, or its tokenizer is missing.
        """
        if text is None and model.use not in self.USES:
            raise WeightsError(
                f"{model.name}: loaded with `use` {model.use}, which leaves out parts that this "
                f"needs; load it with `use` {self.USES[0]}, or set `text` to a phrase"
            )
        self.model, self.text = model, text
        self.max_batch_size = model.compiled_for
        """Maximum number of frames that the network processes at once; None for no limit."""
        self._text_embeddings = None if text is None else self._embed_text(text)
        self._last_window: tuple[AudioWindow, Tensor] | None = None

    @property
    def rate_hz(self) -> int:
        """Sample rate of the audio windows in Hz."""
        return int(self.model.network.clap.config.rate_hz)

    def prepare(self, frames: Sequence[UInt8Array]) -> FrameInputs:
        """Resize and normalise B frames for the network, on the model's device.

        Args:
            frames: Pixels, uint8, (H, W, 3), RGB, all of one size.
        """
        count = max(1, PIXELS_PER_RESIZE // (frames[0].size // 3))
        chunks = [
            self._prepare(frames[start : start + count]) for start in range(0, len(frames), count)
        ]
        if len(chunks) == 1:  # torch.cat would copy it
            return chunks[0]
        clip = [chunk.clip for chunk in chunks if chunk.clip is not None]
        return FrameInputs(
            sam=torch.cat([chunk.sam for chunk in chunks]),
            beit=torch.cat([chunk.beit for chunk in chunks]),
            clip=torch.cat(clip) if clip else None,
        )

    def _prepare(self, frames: Sequence[UInt8Array]) -> FrameInputs:
        network = self.model.network
        source_size = network.config.source_size
        if source_size is not None:
            frames = [squash(frame, source_size) for frame in frames]
        pixels = self._to_device(frames).permute(0, 3, 1, 2)
        sam, beit = network.prepare(pixels)
        clip = network.clip.preprocess(pixels) if self._text_embeddings is None else None
        return FrameInputs(sam=sam, beit=beit, clip=clip)

    def _to_device(self, arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Stack arrays on the model's device, without waiting for earlier work of a GPU."""
        stacked = torch.from_numpy(np.stack(arrays))
        if self.model.device.type == "cuda":  # copying from pinned memory does not block
            stacked = stacked.pin_memory()
        return stacked.to(self.model.device, non_blocking=True)

    @property
    def route(self) -> Hear | None:
        """How sound sources are found; None with a text prompt."""
        return "trained" if self.text is None else None

    def names_of(self, window: AudioWindow | None) -> tuple[str, ...] | None:  # noqa: ARG002
        """Return the names of the sources in a window; None if sources have no names."""
        return None if self.text is None else (self.text,)

    def numbers_of(self, window: AudioWindow | None) -> tuple[int, ...]:  # noqa: ARG002
        """Return the numbers of these names in the whole video, from 1; () without names."""
        return () if self.text is None else (1,)

    def hear(
        self,
        seconds: Iterator[AudioWindow],
        timing: Timing = "paper",
        silence_dbfs: float | None = None,
    ) -> Iterator[AudioWindow]:
        """Prepare the sound of a video for `logits`.

        Args:
            seconds: One window per second.
            timing: `fine` to cut the sound where its sources change, `paper` to keep seconds.
            silence_dbfs: Level below which sound counts as silence; None to switch this off.
        """
        if timing == "paper":
            return seconds
        return cut_at_changes(seconds, self.model.network.clap, silence_dbfs=silence_dbfs)

    def without_samples(self, window: AudioWindow, silence_dbfs: float | None) -> AudioWindow:
        """Return a window from `hear` without its samples, but with all data that frames need.

        Args:
            window: The window.
            silence_dbfs: Level below which windows have no masks; None to switch this off.
        """
        needed = not window.is_silent(silence_dbfs) and self.text is None
        with torch.inference_mode():
            embedding = self.embed_windows([window])[0].float().cpu().numpy() if needed else None
        return window.without_samples(embedding)

    def logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> Tensor:
        """Return the mask logits (B, 1, h, w) of B frames; see `source_logits`."""
        return torch.stack(self.source_logits(inputs, windows))

    def source_logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """Return the mask logits of B frames, (K, h, w) each, for K sources; K = 1 without names.

        If the device runs out of memory, the batch size is halved, for this and all later calls.

        Args:
            inputs: The frames, from `prepare`.
            windows: The audio window of each frame; empty with a text prompt.

        Raises:
            Av2tsamError: The memory is too small for a single frame.
        """
        done: list[Tensor] = []
        start, count = 0, len(inputs.sam)
        while start < count:
            stop = min(count, start + (self.max_batch_size or count))
            try:
                done += self._logits(inputs, windows, start, stop)
                start = stop
                continue
            except torch.OutOfMemoryError:
                pass  # memory is only freed after this handler: the error refers to the tensors
            self._halve_batch(stop - start)
        return done

    def _halve_batch(self, size: int) -> None:
        """Reduce the batch size after `size` frames did not fit into memory."""
        if size == 1:
            raise Av2tsamError(
                f"{self.model.name}: the memory of {self.model.device} is too small for one frame; "
                "free some memory, or set `device` to cpu"
            )
        self.max_batch_size = size // 2
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d frames per batch: continuing with %d", size, self.max_batch_size
        )

    def _logits(
        self, inputs: FrameInputs, windows: Sequence[AudioWindow], start: int, stop: int
    ) -> Sequence[Tensor]:
        """Return the mask logits of frames start ... stop - 1, (K, h, w) each."""
        count = stop - start
        if self.max_batch_size is not None and self.max_batch_size == self.model.compiled_for:
            count = self.max_batch_size  # another size would be compiled first
        if (start, count) != (0, len(inputs.sam)):
            inputs = inputs.slice(start, stop, count)
        with torch.inference_mode():
            return self._segment(inputs, windows[start:stop])[: stop - start]

    def _segment(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> Sequence[Tensor]:
        """Return the mask logits of B frames, (K, h, w) each; padding needs no windows."""
        network = self.model.network
        if self._text_embeddings is not None:
            logits = network.segment_text(inputs.sam, inputs.beit, self._text_embeddings)
        else:
            clap = self.embed_windows(windows)
            rows = torch.arange(len(inputs.sam), device=clap.device).clamp_(max=len(windows) - 1)
            clip = network.clip(inputs.clip)
            logits = best_mask(network(inputs.sam, inputs.beit, clip, clap[rows]))
        return logits.unbind()

    def _embed_text(self, text: str) -> Tensor:
        """Return the word embeddings (1, L, D) of a phrase."""
        ids = self.model.tokenizer(text).to(self.model.device)
        with torch.inference_mode():
            return self.model.network.embed_text(ids)

    def embed_windows(self, windows: Sequence[AudioWindow]) -> Tensor:
        """Return the CLAP embeddings (B, A) of B windows; each window is embedded only once.

        Consecutive frames, and batches, can share a window. Windows are compared by identity,
        because windows of different videos have the same indices.
        """
        known = (
            {} if self._last_window is None else {id(self._last_window[0]): self._last_window[1]}
        )
        given = {id(w): w.embedding for w in windows if w.embedding is not None}
        if given:
            known |= zip(given, self._to_device(list(given.values())), strict=True)
        for window in windows:
            if id(window) not in known:  # one by one, because results depend on the batch size
                samples = self._to_device([window.samples])
                known[id(window)] = self.model.network.embed_windows(samples)[0]
        self._last_window = (windows[-1], known[id(windows[-1])])
        return torch.stack([known[id(window)] for window in windows])


def compile_network(model: LoadedModel, batch_size: int) -> LoadedModel:
    """Compile a network, in place, for one batch size; this takes about a minute.

    For the use `words`, BEiT-3 is not compiled, because the number of its inputs varies.

    Raises:
        UsageError: PyTorch cannot compile the network on this machine.
    """
    text_sam = model.network.text_sam
    parts = (text_sam.image_encoder, text_sam.beit3)
    for part in parts[:1] if model.use == "words" else parts:
        part.compile(dynamic=False)
    compiled = replace(model, compiled_for=batch_size)
    began_s = time.perf_counter()
    try:
        _run_once(compiled, batch_size)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise UsageError(f"`compile` does not work on this machine ({reason}); drop it") from error
    log.warning("compiled the network in %.0f s", time.perf_counter() - began_s)
    return compiled


def _run_once(model: LoadedModel, batch_size: int) -> None:
    """Run a network on black frames and silence, which compiles it."""
    segmenter = Segmenter(model, None if model.use == "trained" else "the")
    samples = np.zeros(segmenter.rate_hz, np.float32)
    window = AudioWindow(samples, index=0, rate_hz=segmenter.rate_hz)
    frames = [np.zeros((64, 64, 3), np.uint8)] * batch_size
    with torch_threads(model.cpu_threads):
        segmenter.logits(segmenter.prepare(frames), [window] * batch_size)
