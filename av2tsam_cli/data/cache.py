"""Compute CLIP and CLAP embeddings, sound levels and image features once and keep them on disk.

Each .npy file belongs to one clip and one frozen encoder of the network. Its folder is named after
a hash of the encoder's weights and settings, and the file after a hash of the clip's content, so
changed weights or data never match old files, and an interrupted run continues where it stopped.
Files are written atomically: processes that fill the same cache at worst do some work twice.

T = labelled seconds of a clip.
"""

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.check import ClipProblem
from av2tsam_cli.data.clips import read_clip_frames, read_clip_windows, read_file
from av2tsam_cli.embeddings.clap import ClapConfig
from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.hub import locate
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.preprocess import sam_image, squash
from av2tsam_cli.model.sam import ImageFeatures
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.values import AudioWindow, Progress, UInt8Array

VERSION = 1
"""Increase it whenever the same weights and files would give different embeddings."""
DIGEST_BYTES = 32
READ_AHEAD = 4
"""Clips that are read while the encoders run."""
MAPPED_FILES = 16_384
"""Files that stay mapped into memory; Linux allows 65,530 mappings per process."""

InputKind = Literal["frames", "sound"]


class Embeddings(NamedTuple):
    """Cached values of T seconds of one clip."""

    clip: Tensor
    """CLIP embeddings of the frames, float32, (T, E)."""
    clap: Tensor
    """CLAP embeddings of the audio windows, float32, (T, A)."""
    image: tuple[Tensor, ...] = ()
    """Feature maps of SAM's image encoder, (T, C, h, w) each, finest first; empty if not cached."""
    level_dbfs: Tensor = torch.tensor(math.inf)
    """Sound levels of the windows, float64, (T,); infinite if not measured."""


@dataclass(frozen=True)
class EmbeddingCache:
    """The cached embeddings of some clips. It holds paths; arrays are mapped when they are read."""

    clips: tuple[Clip, ...]
    """The clips that could be read, in the given order."""
    skipped: tuple[ClipProblem, ...]
    """The clips that could not be read."""
    files: dict[Clip, tuple[Path, ...]] = field(repr=False)
    """Files of each clip: CLIP embeddings, CLAP embeddings, sound levels, feature maps."""
    content: dict[Clip, str] = field(repr=False)
    """A hash of the content of each clip's labelled frames and of its sound."""

    @classmethod
    def open_or_build(
        cls,
        folder: Path,
        network: Av2tSam,
        clips: Sequence[Clip],
        *,
        image: bool = False,
        reference_sound: bool = False,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> "EmbeddingCache":
        """Compute the missing embeddings of the labelled seconds of each clip.

        Existing files are verified by their checksum and computed again if they are corrupted.

        Args:
            folder: Folder of the cache; created if it does not exist.
            network: The network whose encoders are run, on its device and in evaluation mode.
            clips: The clips.
            image: Also cache the image encoder's output, which is constant only without adapters.
            reference_sound: Prepare sound as the reference implementation does.
            skip_bad: Skip clips that cannot be read instead of raising an error.
            progress: Called after each computed clip with the number done and the total.

        Raises:
            MediaError: A file cannot be read, and `skip_bad` is not set.
            UsageError: `image` is set for a network with adapters.
            Av2tsamError: The cache cannot be written.
        """
        if image and network.adapter is not None:
            raise UsageError(
                "image features can be cached only without adapters; set `adapter` to False"
            )
        encoders = _encoders(folder, network, image=image, reference_sound=reference_sound)
        with ThreadPoolExecutor() as pool:
            entries = list(pool.map(partial(_find_files, encoders), clips))
        errors = {entry.clip: entry.error for entry in entries if entry.error is not None}
        if errors and not skip_bad:
            raise next(iter(errors.values()))
        missing = [entry for entry in entries if entry.missing]
        # Processes that start at the same time then rarely compute the same clip.
        random.SystemRandom().shuffle(missing)
        inputs = run_ahead(
            _read_inputs(network, missing, reference_sound), depth=READ_AHEAD, name="reader"
        )
        # The last bits of sums depend on the number of threads, so the caller's is not used.
        threads = 1 if is_light(network) else os.cpu_count() or 1
        device = next(network.parameters()).device
        with _evaluating(network), torch_threads(threads), closing(inputs):
            for done, (entry, tensors) in enumerate(inputs, start=1):
                if not isinstance(tensors, MediaError):
                    _compute(entry, tensors, device)
                elif skip_bad:
                    errors[entry.clip] = tensors
                else:
                    raise tensors
                if progress:
                    progress(done, len(missing))
        readable = [entry for entry in entries if entry.clip not in errors]
        return cls(
            clips=tuple(entry.clip for entry in readable),
            skipped=tuple(
                ClipProblem(clip, str(errors[clip]))
                for clip in dict.fromkeys(clips)
                if clip in errors
            ),
            files={entry.clip: entry.files for entry in readable},
            content={entry.clip: entry.content for entry in readable},
        )

    def read(self, clip: Clip, seconds: Sequence[int]) -> Embeddings:
        """Read the embeddings of some labelled seconds of a clip, stacked.

        Raises:
            MediaError: A file of the cache was removed or corrupted since.
        """
        rows = [clip.labelled.index(second) for second in seconds]
        clip_rows, clap_rows, level_dbfs, *image = (
            _read_rows(path, rows) for path in self.files[clip]
        )
        return Embeddings(clip_rows, clap_rows, tuple(image), level_dbfs)


def levels_dbfs(windows: Tensor) -> Tensor:
    """Return the RMS levels, float64, (T,), of windows (T, n); -inf for digital silence."""
    samples = windows.cpu().numpy()
    levels = [AudioWindow(w, index=k, rate_hz=len(w)).level_dbfs for k, w in enumerate(samples)]
    return torch.tensor(levels, dtype=torch.float64)


def default_folder() -> Path:
    """Return the folder that is used if no `cache` is set."""
    return locate.home() / "embeddings"


def network_frames(config: ModelConfig, frames: UInt8Array) -> Tensor:
    """Convert frames (T, H, W, 3) to uint8 (T, 3, h, w), resized if the model requires it."""
    if config.source_size is not None:
        frames = np.stack([squash(frame, config.source_size) for frame in frames])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def cached_features(network: Av2tSam, maps: Sequence[Tensor]) -> ImageFeatures:
    """Turn cached feature maps (N, C, h, w) into inputs of the mask decoder, with its layers."""
    encoded = maps[0] if len(maps) == 1 else maps
    return network.text_sam.mask_decoder.image_features(encoded)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Encoder:
    """A frozen part of the network whose outputs are cached."""

    folder: Path
    """Folder of its files."""
    input: InputKind
    """Whether it takes frames, uint8, (T, 3, h, w), or audio windows (T, n)."""
    outputs: int
    """Number of arrays, and of files, per clip."""
    run: Callable[[Tensor], Sequence[Tensor]]
    """Computes the arrays, (T, ...) each."""


def _encoders(
    folder: Path, network: Av2tSam, *, image: bool, reference_sound: bool
) -> tuple[_Encoder, ...]:
    """Return CLIP, CLAP and, if `image` is set, the image encoder."""
    config, image_encoder = network.config, network.text_sam.image_encoder

    def run_clip(frames: Tensor) -> Sequence[Tensor]:
        return [network.embed_frames(frames).float()]

    def run_clap(windows: Tensor) -> Sequence[Tensor]:
        return [network.embed_windows(windows).float(), levels_dbfs(windows)]

    def run_image_encoder(frames: Tensor) -> Sequence[Tensor]:
        # One frame at a time, because more would not fit into memory with the full-size network.
        encoded = [image_encoder(sam_image(frame[None], config.sam.image_size)) for frame in frames]
        maps = [[one] if isinstance(one, Tensor) else one for one in encoded]
        return [torch.cat(level) for level in zip(*maps, strict=True)]

    clip_key = encoder_key(network.clip, [_sizes(config.clip), config.source_size])
    clap_key = encoder_key(network.clap, [_sizes(config.clap), reference_sound])
    encoders = [
        _Encoder(folder / f"clip-{clip_key}", input="frames", outputs=1, run=run_clip),
        _Encoder(folder / f"clap-{clap_key}", input="sound", outputs=2, run=run_clap),
    ]
    if image:
        key = encoder_key(image_encoder, [asdict(config.sam), config.source_size])
        encoders.append(
            _Encoder(
                folder / f"image-{key}",
                input="frames",
                outputs=config.sam.feature_maps,
                run=run_image_encoder,
            )
        )
    return tuple(encoders)


def _sizes(config: ClapConfig | ClipConfig) -> dict[str, object]:
    """Return the sizes of an encoder; its text encoder does not change embeddings."""
    return {name: value for name, value in asdict(config).items() if name != "text"}


def encoder_key(module: nn.Module, settings: object) -> str:
    """Return a hash of the settings and all weights of an encoder or a whole network."""
    digest = hashlib.sha256(json.dumps([VERSION, settings]).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        dense = tensor.to_dense() if tensor.is_mkldnn else tensor  # packed for the CPU
        raw = dense.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _CacheEntry:
    """The files of one clip in the cache."""

    clip: Clip
    files: tuple[Path, ...] = ()
    """Files of all encoders."""
    missing: tuple[tuple[_Encoder, tuple[Path, ...]], ...] = ()
    """Encoders whose files are missing or corrupted, with these files."""
    content: str = ""
    """A hash of the content of the clip's labelled frames and of its sound."""
    error: MediaError | None = None
    """Why the clip itself cannot be read."""


def _find_files(encoders: Sequence[_Encoder], clip: Clip) -> _CacheEntry:
    """Locate the files of a clip in the cache, by the content of its frames and sound."""
    frames = [clip.frames[second] for second in clip.labelled]
    try:
        hashes: dict[InputKind, str] = {
            "frames": content_hash(clip, frames if clip.video is None else [clip.video]),
            "sound": content_hash(clip, [clip.sound]),
        }
    except MediaError as error:
        return _CacheEntry(clip, error=error)
    by_encoder = [
        (
            encoder,
            tuple(
                encoder.folder / f"{hashes[encoder.input]}-{k}.npy" for k in range(encoder.outputs)
            ),
        )
        for encoder in encoders
    ]
    return _CacheEntry(
        clip,
        files=tuple(path for _, paths in by_encoder for path in paths),
        missing=tuple(
            (encoder, paths) for encoder, paths in by_encoder if not all(map(_is_intact, paths))
        ),
        content=f"{hashes['frames']}{hashes['sound']}",
    )


def content_hash(clip: Clip, paths: Iterable[Path]) -> str:
    """Return a hash of the content of some files and of the seconds that are read from them."""
    digest = hashlib.sha256(json.dumps([clip.labelled, clip.seconds]).encode())
    for path in paths:
        digest.update(hashlib.sha256(read_file(path)).digest())
    return digest.hexdigest()[:32]


def _read_inputs(
    network: Av2tSam, entries: Sequence[_CacheEntry], reference_sound: bool
) -> Generator[tuple[_CacheEntry, dict[InputKind, Tensor] | MediaError], None, None]:
    """Read what the encoders of the missing files need of each clip, or why it cannot be read."""
    rate_hz = network.clap.config.rate_hz
    for entry in entries:
        clip = entry.clip
        kinds = {encoder.input for encoder, _ in entry.missing}
        tensors: dict[InputKind, Tensor] = {}
        try:
            if "frames" in kinds:
                frames = read_clip_frames(clip, clip.labelled)
                tensors["frames"] = network_frames(network.config, frames)
            if "sound" in kinds:
                windows = read_clip_windows(clip, clip.labelled, rate_hz, reference=reference_sound)
                tensors["sound"] = torch.from_numpy(windows)
        except MediaError as error:
            yield entry, error
        else:
            yield entry, tensors


def _compute(entry: _CacheEntry, tensors: dict[InputKind, Tensor], device: torch.device) -> None:
    """Compute and write the missing files of one clip; the result depends on no other clip."""
    for encoder, paths in entry.missing:
        if all(map(_is_intact, paths)):
            continue  # written by another process in the meantime
        arrays = encoder.run(tensors[encoder.input].to(device))
        for path, array in zip(paths, arrays, strict=True):
            _write(path, _to_numpy(array))


@contextmanager
def _evaluating(network: Av2tSam) -> Iterator[None]:
    """Run the block with the network in evaluation mode and without gradients."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _to_numpy(array: Tensor) -> npt.NDArray[Any]:
    """Convert to NumPy, which has no bfloat16: its bits are stored as int16."""
    array = array.cpu().contiguous()
    stored = array.view(torch.int16) if array.dtype == torch.bfloat16 else array
    return stored.numpy()


@lru_cache(maxsize=MAPPED_FILES)
def _mapped(path: Path) -> npt.NDArray[Any]:
    """Map a file of the cache into memory; the mapping keeps no file open."""
    return np.lib.format.open_memmap(path, mode="r")


def _read_rows(path: Path, rows: list[int]) -> Tensor:
    """Read some rows from a file of the cache."""
    try:
        stored = torch.from_numpy(np.array(_mapped(path)[rows]))
    except (OSError, ValueError, IndexError) as error:
        raise MediaError(f"{path}: removed or corrupted in the meantime; run again") from error
    return stored.view(torch.bfloat16) if stored.dtype == torch.int16 else stored


def _write(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array and its checksum atomically.

    Raises:
        Av2tsamError: The file cannot be written.
    """
    with (
        write_errors(path, hint="or set `cache` to another folder"),
        atomic_file(path) as part,
        part.open("wb") as file,
    ):
        np.lib.format.write_array(file, array, allow_pickle=False)
        file.write(hashlib.sha256(array.data).digest())


def _is_intact(path: Path) -> bool:
    """Return whether a file of the cache exists and matches its checksum."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            return file.read() == hashlib.sha256(array.data).digest()
    except (OSError, ValueError):
        return False
