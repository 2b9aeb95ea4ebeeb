"""A model on a device: from frames, and one-second windows or a phrase, to mask logits."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from av2tsam_cli.errors import Av2tsamError, UsageError, WeightsError
from av2tsam_cli.model import checkpoint, weights
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.packed import can_pack, pack
from av2tsam_cli.model.prediction import select
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.model.text import Tokenizer, tokenizer_for
from av2tsam_cli.values import AudioWindow, UInt8Array

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARTS = checkpoint.PARTS
"""Parts of a network; listening needs all."""
TEXT_PARTS = ("text_sam",)
"""Parts of a network that looking for a written phrase needs."""
LIGHT_PARAMETERS = 50_000_000
"""A network below this many parameters leaves time to decode and encode beside it."""
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""What a CPU needs to multiply bfloat16 faster than float32, in PyTorch's names."""
_BATCH = {"cpu": (4, 1), "cuda": (32, 8), "mps": (8, 2)}
"""Frames per batch by kind of device: for a light network, for a full-size one."""
PIXELS_AT_ONCE = 1 << 23
"""Pixels of frames that are shrunk together: a batch of 4K frames would fill a GPU's memory."""
WORTH_COMPILING = {"cpu": (20_000, None), "cuda": (3000, 300), "mps": (3000, 300)}
"""Frames from which compiling pays by kind of device: a light network, a full-size one. None: it
never does, packed weights are faster."""

log = logging.getLogger(__name__)


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
        return tokenizer_for(self.network.config, self.path)

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


def is_light(network: torch.nn.Module) -> bool:
    """Whether a network is small, by its parameters; packed ones (buffers) count as well."""
    weights = chain(network.parameters(), network.buffers())
    return sum(weight.numel() for weight in weights) < LIGHT_PARAMETERS


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
        return "bf16" if _fast_bf16(device.type) else "fp32"
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision {wanted}: use auto or one of: {', '.join(PRECISIONS)}")
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: not on the CPU; use bf16 or fp32")
    return wanted


def _fast_bf16(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 a good deal faster than float32.

    Of CPUs these are the ones with instructions for it; the others calculate it in float32, and
    slower. An old PyTorch that cannot tell is taken not to have them.
    """
    if kind != "cpu":
        return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in BF16_INSTRUCTIONS)


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
    path = weights.resolve(model, hears="projector" in parts)
    if place.type == "cpu":
        _keep_freed_memory()
    # A thread that once computed in parallel keeps its workers. With those and the network's own
    # there would be more than cores, and OpenMP's threads would then sleep at every barrier.
    with own_threads(1):
        network = checkpoint.load_model(path, place, PRECISIONS[chosen], parts=parts)
        name = network.config.name if model is None else str(model)
        loaded = LoadedModel(network=network, name=name, path=path, device=place, precision=chosen)
        if packed:
            pack_weights(loaded)
    return loaded


def pack_weights(model: LoadedModel) -> None:
    """Lay the weights of the large encoders out as a CPU multiplies them, in bf16; in place."""
    if model.device.type == "cpu" and can_pack():
        pack(model.network.text_sam.image_encoder)
        pack(model.network.text_sam.beit3)


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


def compile_network(model: LoadedModel, batch_size: int) -> LoadedModel:
    """Compile a model's network, in place, for batches of one size; it takes a minute or so.

    Raises:
        UsageError: The network cannot be compiled here.
    """
    text_sam = model.network.text_sam
    for part in (text_sam.image_encoder, text_sam.beit3):
        part.compile(dynamic=False)
    compiled = replace(model, compiled_for=batch_size)
    began = time.perf_counter()
    try:
        _try_out(compiled)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise UsageError(f"--compile: does not work here ({reason}); leave it out") from error
    log.warning("compiled the network in %.0f s", time.perf_counter() - began)
    return compiled


def _try_out(model: LoadedModel) -> None:
    """Run the model once as `segment` will."""
    segmenter = Segmenter(model, None if model.hears else "the")
    samples = np.zeros(segmenter.rate_hz, np.float32)
    window = AudioWindow(samples, index=0, rate_hz=segmenter.rate_hz)
    frames = [np.zeros((64, 64, 3), np.uint8)] * (model.compiled_for or 1)
    with own_threads(model.cpu_threads):
        segmenter.logits(segmenter.prepare(frames), [window] * len(frames))


@cache
def _keep_freed_memory() -> None:
    """Have glibc reuse what is freed: by default every large tensor is made of fresh zeroed pages.

    Seen on one machine: 20 % of the time of a full-size image encoder.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


# Of glibc's malloc.h; the largest number that mallopt takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 2**31 - 1


@contextlib.contextmanager
def own_threads(count: int) -> Generator[None, None, None]:
    """Give PyTorch `count` CPU threads on the calling thread, so that stages share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
