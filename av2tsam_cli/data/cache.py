"""CLIP and CLAP embeddings, levels, frozen image features: computed once, kept as .npy files.

A file belongs to one clip and one tower. Its folder is named after the tower's weights, the file
after the content of what the tower was given: nothing has to be thrown away when weights or data
change, and an interrupted pass goes on where it was. Files are written beside their place and then
renamed, so that processes which start at once at worst do some work twice.

T = labelled seconds of a clip, N = places in a batch.
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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from av2tsam_cli.data.avsbench import (
    Clip,
    Damaged,
    read_file,
    read_frames,
    read_windows,
)
from av2tsam_cli.errors import Av2tsamError, MediaError, UsageError
from av2tsam_cli.hub import locate
from av2tsam_cli.inference.device import own_threads
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.prediction import ImageFeatures
from av2tsam_cli.model.preprocess import sam_image, squash
from av2tsam_cli.outputs.staging import discard, staging_path
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.values import AudioWindow, UInt8Array

VERSION = 1
"""Raised whenever the same weights and files give other embeddings."""
DIGEST_BYTES = 32
READ_AHEAD = 4
"""Clips that are read while the towers work."""
MAPPED_FILES = 16_384
"""Files that stay mapped into memory; Linux allows a process 65,530."""
Progress = Callable[[int, int], None]
"""Is told how many clips are done, and how many there are to compute."""


class Embeddings(NamedTuple):
    """What is kept of one second, or of N stacked."""

    clip: Tensor
    """CLIP's embedding of the frame, float32, (E,)."""
    clap: Tensor
    """CLAP's embedding of the window, float32, (A,)."""
    image: tuple[Tensor, ...] = ()
    """Levels of the image encoder, (C, h, w) each, finest first, where they were asked for."""
    level_dbfs: Tensor = torch.tensor(math.inf)
    """Level of the window, float64, (); infinite where nobody measured it."""


@dataclass(frozen=True)
class EmbeddingCache:
    """The embeddings of some clips. Holds paths only: the arrays are mapped when they are read."""

    clips: tuple[Clip, ...]
    """Those that could be read, in the order that was given."""
    skipped: tuple[Damaged, ...]
    """Those that could not."""
    files: tuple[tuple[Path, ...], ...] = field(repr=False)
    """Of each clip: CLIP's file, CLAP's, that of the sound's levels, and one per level of the image
    encoder."""

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
        """Compute what is not there yet, of the labelled seconds of each clip.

        What is there is checked by its checksum, and computed again where it is damaged.

        Args:
            folder: Where the files are kept; made where it does not exist.
            network: Its towers are run on their device, in evaluation mode.
            clips: The clips.
            image: Also keep the image encoder's output, which only stays the same without adapters.
            reference_sound: Prepare the sound as the reference does.
            skip_bad: Leave out clips that cannot be read, instead of stopping.
            progress: Is called after each clip.

        Raises:
            MediaError: A file cannot be read, and `skip_bad` is not set.
            UsageError: Image features of a network with adapters were asked for.
            Av2tsamError: The cache cannot be written.
        """
        if image and network.adapter is not None:
            raise UsageError("image features can be cached only without adapters; use --no-adapter")
        towers = _towers(folder, network, image=image, reference_sound=reference_sound)
        with ThreadPoolExecutor() as pool:
            entries = list(pool.map(partial(_look_up, towers), clips))
        damaged = {e.clip: e.damage for e in entries if e.damage is not None}
        if damaged and not skip_bad:
            raise next(iter(damaged.values()))
        missing = [entry for entry in entries if entry.missing]
        # Processes that start at once then seldom work on the same clip.
        random.Random(os.getpid()).shuffle(missing)  # noqa: S311 - no secret depends on it
        with _evaluating(network), closing(_fill(network, missing, reference_sound)) as filled:
            for number, (entry, error) in enumerate(filled, start=1):
                if error is not None and not skip_bad:
                    raise error
                if error is not None:
                    damaged[entry.clip] = error
                if progress:
                    progress(number, len(missing))
        kept = [entry for entry in entries if entry.clip not in damaged]
        return cls(
            clips=tuple(entry.clip for entry in kept),
            skipped=tuple(
                Damaged(clip, str(damaged[clip]))
                for clip in dict.fromkeys(clips)
                if clip in damaged
            ),
            files=tuple(entry.files for entry in kept),
        )

    def __getitem__(self, place: tuple[int, int]) -> Embeddings:
        """The embeddings of a clip, by its position, and one of its labelled seconds.

        Raises:
            MediaError: A file of the cache has gone or was damaged since.
        """
        index, second = place
        row = self.clips[index].labelled.index(second)
        clip, clap, level_dbfs, *image = (_row(path, row) for path in self.files[index])
        return Embeddings(clip, clap, tuple(image), level_dbfs)

    def batch(self, places: Sequence[tuple[int, int]]) -> Embeddings:
        """The embeddings of N places, stacked: (N, E), (N, A), (N, C, h, w), (N,)."""
        found = [self[place] for place in places]
        image = zip(*(item.image for item in found), strict=True)
        return Embeddings(
            torch.stack([item.clip for item in found]),
            torch.stack([item.clap for item in found]),
            tuple(torch.stack(level) for level in image),
            torch.stack([item.level_dbfs for item in found]),
        )


def levels_dbfs(windows: Tensor) -> Tensor:
    """RMS levels, float64, (T,), of windows (T, n); -inf for digital silence."""
    samples = windows.cpu().numpy()
    levels = [AudioWindow(w, index=k, rate_hz=len(w)).level_dbfs for k, w in enumerate(samples)]
    return torch.tensor(levels, dtype=torch.float64)


def default_folder() -> Path:
    """Where embeddings are kept unless another folder is named."""
    return locate.home() / "embeddings"


def pixels(config: ModelConfig, frames: UInt8Array) -> Tensor:
    """Frames (T, H, W, 3) as the network takes them: (T, 3, h, w) uint8, squashed if it says so."""
    if config.source_size is not None:
        frames = np.stack([squash(frame, config.source_size) for frame in frames])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def cached_features(network: Av2tSam, levels: Sequence[Tensor]) -> ImageFeatures:
    """Cached levels (N, C, h, w) as the mask decoder takes them; its own layers are run."""
    encoded = levels[0] if len(levels) == 1 else levels
    return network.text_sam.mask_decoder.image_features(encoded)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Tower:
    """A frozen part of the network, and where its files are kept."""

    folder: Path
    hears: bool
    """Whether it is given windows (T, n) or pixels (T, 3, h, w)."""
    outputs: int
    """How many arrays, hence files, it makes of a clip."""
    run: Callable[[Tensor], Sequence[Tensor]]


def _towers(
    folder: Path, network: Av2tSam, *, image: bool, reference_sound: bool
) -> tuple[_Tower, ...]:
    """CLIP, CLAP and, where asked for, the image encoder."""
    config, encoder = network.config, network.text_sam.image_encoder

    def see(frames: Tensor) -> Sequence[Tensor]:
        return [network.embed_frames(frames).float()]

    def hear(windows: Tensor) -> Sequence[Tensor]:
        return [network.embed_windows(windows).float(), levels_dbfs(windows)]

    def encode(frames: Tensor) -> Sequence[Tensor]:
        # One at a time: more of them fill the memory at full size.
        encoded = [encoder(sam_image(frame[None], config.sam.image_size)) for frame in frames]
        levels = [[one] if isinstance(one, Tensor) else one for one in encoded]
        return [torch.cat(level) for level in zip(*levels, strict=True)]

    clip_key = tower_key(network.clip, [asdict(config.clip), config.source_size])
    clap_key = tower_key(network.clap, [asdict(config.clap), reference_sound])
    towers = [
        _Tower(folder / f"clip-{clip_key}", hears=False, outputs=1, run=see),
        _Tower(folder / f"clap-{clap_key}", hears=True, outputs=2, run=hear),
    ]
    if image:
        key = tower_key(encoder, [asdict(config.sam), config.source_size])
        outputs = 1 if config.sam.kind == "sam" else 3
        towers.append(_Tower(folder / f"image-{key}", hears=False, outputs=outputs, run=encode))
    return tuple(towers)


def tower_key(module: nn.Module, settings: object) -> str:
    """A name for what a tower computes: of its configuration and all of its weights."""
    digest = hashlib.sha256(json.dumps([VERSION, settings]).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Entry:
    """What the cache has of one clip."""

    clip: Clip
    files: tuple[Path, ...] = ()
    """Of all towers."""
    missing: tuple[tuple[_Tower, tuple[Path, ...]], ...] = ()
    """Towers whose files are not there or damaged."""
    damage: MediaError | None = None


def _look_up(towers: Sequence[_Tower], clip: Clip) -> _Entry:
    """Find out which files of a clip are there, by the content of what goes into them."""
    seen = clip.frames if clip.video is None else (clip.video,) * len(clip.frames)
    try:
        sight = _content(clip, dict.fromkeys(seen[second] for second in clip.labelled))
        sound = _content(clip, [clip.sound])
    except MediaError as error:
        return _Entry(clip, damage=error)
    names = {False: sight, True: sound}
    places = [
        (tower, tuple(tower.folder / f"{names[tower.hears]}-{k}.npy" for k in range(tower.outputs)))
        for tower in towers
    ]
    return _Entry(
        clip,
        files=tuple(path for _, paths in places for path in paths),
        missing=tuple(place for place in places if not all(map(_is_whole, place[1]))),
    )


def _content(clip: Clip, paths: Iterable[Path]) -> str:
    """A name for what is in some files, and for the seconds that are taken from them."""
    digest = hashlib.sha256(json.dumps([clip.labelled, clip.seconds]).encode())
    for path in paths:
        digest.update(hashlib.sha256(read_file(clip, path)).digest())
    return digest.hexdigest()[:32]


def _fill(
    network: Av2tSam, missing: Sequence[_Entry], reference_sound: bool
) -> Generator[tuple[_Entry, MediaError | None], None, None]:
    """Compute and write what is missing, clip by clip: what comes out depends on no other clip."""
    inputs = run_ahead(_read(network, missing, reference_sound), depth=READ_AHEAD, name="reader")
    device = next(network.parameters()).device
    # As many threads whoever asks: the last bits of sums depend on them.
    with own_threads(1 if is_light(network) else os.cpu_count() or 1), closing(inputs):
        for entry, given in inputs:
            if isinstance(given, MediaError):
                yield entry, given
                continue
            for tower, paths in entry.missing:
                if not all(map(_is_whole, paths)):  # else another process was faster
                    arrays = tower.run(given[tower.hears].to(device))
                    for path, array in zip(paths, arrays, strict=True):
                        _write(path, _to_numpy(array))
            yield entry, None


def _read(
    network: Av2tSam, missing: Sequence[_Entry], reference_sound: bool
) -> Generator[tuple[_Entry, dict[bool, Tensor] | MediaError], None, None]:
    """Of each clip what the towers need: windows under True, pixels under False."""
    rate_hz = network.clap.config.rate_hz
    for entry in missing:
        clip, given = entry.clip, {}
        try:
            for hears in {tower.hears for tower, _ in entry.missing}:
                given[hears] = (
                    torch.from_numpy(
                        read_windows(clip, clip.labelled, rate_hz, reference=reference_sound)
                    )
                    if hears
                    else pixels(network.config, read_frames(clip, clip.labelled))
                )
        except MediaError as error:
            yield entry, error
        else:
            yield entry, given


@contextmanager
def _evaluating(network: Av2tSam) -> Iterator[None]:
    """Run the network in evaluation mode and without gradients, and leave it as it was."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _to_numpy(array: Tensor) -> npt.NDArray[Any]:
    """NumPy has no bfloat16: its bits are kept as int16."""
    array = array.cpu().contiguous()
    stored = array.view(torch.int16) if array.dtype == torch.bfloat16 else array
    return stored.numpy()


@lru_cache(maxsize=MAPPED_FILES)
def _mapped(path: Path) -> npt.NDArray[Any]:
    """A file of the cache, mapped into memory; a mapping holds no file open."""
    return np.lib.format.open_memmap(path, mode="r")


def _row(path: Path, row: int) -> Tensor:
    """One second's tensor from a file of the cache."""
    try:
        stored = torch.from_numpy(np.array(_mapped(path)[row]))
    except (OSError, ValueError, IndexError) as error:
        raise MediaError(f"{path}: was removed or damaged meanwhile; run again") from error
    return stored.view(torch.bfloat16) if stored.dtype == torch.int16 else stored


def _write(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array and its checksum beside its place, then move it there.

    Raises:
        Av2tsamError: It cannot be written.
    """
    part = staging_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.write(hashlib.sha256(array.data).digest())
        part.replace(path)
    except OSError as error:
        raise Av2tsamError(
            f"{path}: cannot be written ({error.strerror}); free space on the disk, or choose "
            "another place with --cache"
        ) from error
    finally:
        discard(part)


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache is there and what was once written."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            return file.read() == hashlib.sha256(array.data).digest()
    except (OSError, ValueError):
        return False
