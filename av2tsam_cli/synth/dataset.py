"""Write data sets of scenes in AVSBench's layout: frames, masks, sound, raw videos and the CSV.

The layout is that of AVSBench's S4 and MS3 subsets, as its data loaders read it
(OpenNLPLab/AVSBench, `avs_scripts/avs_s4/dataloader.py`, `avs_scripts/avs_ms3/dataloader.py` and
`preprocess_scripts/`), or that of AVSBench-semantic (`synth.semantic`): frames of 224 x 224 pixels
taken 15/16 of the way through each second.

If sources start and stop at any time, each video also gets a table of its sounds
(`sounds/NAME.csv`, or `sounds.csv` in the folder of a video in AVSBench-semantic's layout), and
each frame of the raw video a mask (`frame_masks/NAME/000000.png` and so on, 255 on the objects that
sound).
"""

import csv
import json
import multiprocessing
import os
import threading
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from av2tsam_cli.avsbench_format import FRAME_OFFSET_S, FRAME_PX, SPLITS, Split, Subset
from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import atomic_folder, write_errors
from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.synth import semantic
from av2tsam_cli.synth.clips import SMALL_H264, encode_png, sounding_mask
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene, SynthSubset
from av2tsam_cli.values import Float32Array, Progress, UInt8Array

GENERATOR_VERSION = 1
"""Increased whenever the same seed generates different scenes."""
RATE_HZ = 16_000
VIDEO_HEIGHT_PX = 144
VIDEO_RATE = 8
VIDEO_RATE_OFF_GRID = 25
"""Higher, because masks change between whole seconds."""
SPLIT_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
FOLDERS = {"s4": "Single-source", "ms3": "Multi-sources", "avss": "AVSBench_semantic"}

Job = tuple[Split, int]
"""A split and a position in it."""


class Entry(NamedTuple):
    """One line of the CSV."""

    split: Split
    name: str
    category: str
    """Category of the first sound source, or of all joined by `_` in AVSBench-semantic; `noise` if
    there is only noise."""


def write_dataset(
    out: Path,
    *,
    subset: Subset,
    videos: int,
    seed: int,
    off_grid: bool = False,
    split_sizes: tuple[int, int, int] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one subset. It appears in `out` when it is complete.

    Args:
        out: Folder for the subset's own folder, such as `Single-source`; may contain the others
            already.
        subset: `s4`, `ms3`, or `avss` for the scenes of `ms3` with a class per pixel.
        videos: Total number of videos.
        seed: The same seed and options give the same data set, for any number of workers.
        off_grid: Let sources start and stop at any time instead of at whole seconds, and write when
            each of them sounds and the mask of every frame of the raw videos.
        split_sizes: Videos in train, val and test; None for 70, 15 and 15 %.
        overwrite: Replace this subset if it exists.
        workers: Number of processes; None for one per core.
        progress: Called after each video.

    Raises:
        UsageError: `out` cannot be used, or the sizes do not add up.
        Av2tsamError: `out` cannot be written.
    """
    sizes = _split_sizes(videos, split_sizes)
    target = out / FOLDERS[subset]
    _check(out, target, overwrite=overwrite)
    replace = overwrite or target.is_dir()  # `_check` allows an empty folder
    with write_errors(target), atomic_folder(target, overwrite=replace) as folder:
        write = (
            partial(_write_semantic_video, folder, seed, off_grid)
            if subset == "avss"
            else partial(_write_video, folder, subset, seed, off_grid)
        )
        entries = _write_videos(write, sizes, workers or os.cpu_count() or 1, progress)
        if subset == "avss":
            semantic.write_tables(folder, entries)
        else:
            _write_csv(folder / f"{subset}_meta_data.csv", subset, entries)
        _write_manifest(folder / "manifest.json", subset, seed, sizes, off_grid=off_grid)


def _split_sizes(videos: int, requested: tuple[int, int, int] | None) -> dict[Split, int]:
    if requested is None:
        val, test = (round(videos * SPLIT_SHARES[split]) for split in ("val", "test"))
        requested = (videos - val - test, val, test)
    if min(requested) < 0 or sum(requested) != videos or videos < 1:
        sizes = ",".join(map(str, requested))
        raise UsageError(
            f"`split_sizes` {sizes} add up to {sum(requested)} videos, not to {videos}; "
            "change them or the number of videos"
        )
    return dict(zip(SPLITS, requested, strict=True))


def _check(out: Path, target: Path, *, overwrite: bool) -> None:
    """Check that nothing else is in the folder and nothing is replaced by accident."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; choose a folder for the data set")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if target.name in found and any(target.iterdir()) and not overwrite:
        raise UsageError(
            f"{target}: already exists; set `overwrite` to replace it, or choose another folder"
        )
    if (others := found - set(FOLDERS.values())) and not overwrite:
        raise UsageError(
            f"{out}: contains other files ({min(others)}); choose an empty or new folder"
        )


def _write_videos(
    write: Callable[[Job], Entry],
    sizes: dict[Split, int],
    workers: int,
    progress: Progress | None,
) -> list[Entry]:
    jobs = [(split, index) for split in SPLITS for index in range(sizes[split])]
    entries = []
    with _mapper(min(workers, len(jobs))) as each:
        for entry in each(write, jobs):
            entries.append(entry)
            if progress:
                progress(len(entries), len(jobs))
    return entries


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Entry]]]:
    """Yield an ordered `map`, over processes if there is more than one worker."""
    if workers == 1:
        yield map
        return
    # Not "fork": forking a process with threads (of a progress bar, of PyTorch) can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        yield partial(pool.map, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Prepare a process of the pool, which would outlive a killed parent without this."""
    cv2.setNumThreads(1)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _write_video(root: Path, subset: SynthSubset, seed: int, off_grid: bool, job: Job) -> Entry:
    """Generate one scene and write all files that AVSBench has for a video."""
    split, index = job
    scene = sample_scene(scene_rng(split, seed, index), subset=subset, off_grid=off_grid)
    category = scene.voices[0].category if scene.voices else "noise"
    entry = Entry(split, f"{subset}_{split}_{index:06d}", category)
    paths = _Paths.of(root / f"{subset}_data", subset, entry)
    for folder in (paths.frames, paths.masks, paths.sound.parent, paths.video.parent):
        folder.mkdir(parents=True, exist_ok=True)
    _write_stills(scene, subset, entry, paths)
    sound = soundtrack(scene, RATE_HZ)
    _write_wav(paths.sound, sound)
    size = round(VIDEO_HEIGHT_PX * scene.width), VIDEO_HEIGHT_PX
    rate = VIDEO_RATE_OFF_GRID if off_grid else VIDEO_RATE
    frames = _draw_frames(scene, size, rate, paths.frame_masks if off_grid else None)
    write_clip(paths.video, frames, sound, size=size, rate=rate, rate_hz=RATE_HZ, h264=SMALL_H264)
    if off_grid:
        _write_sounds(paths.sounds, scene)
    return entry


def _draw_frames(
    scene: Scene, size: tuple[int, int], rate: int, masks: Path | None
) -> Iterator[UInt8Array]:
    """Draw the frames of the raw video, and write their masks if there is a folder for them."""
    renderer = Renderer(_without_jpeg(scene), *size)
    for index in range(scene.duration_s * rate):
        time_s = index / rate
        rgb, ids = renderer.frame(time_s)
        if masks:
            masks.mkdir(parents=True, exist_ok=True)
            mask = sounding_mask(scene, ids, time_s).astype(np.uint8) * 255
            (masks / f"{index:06d}.png").write_bytes(encode_png(mask))
        yield rgb


def _write_semantic_video(root: Path, seed: int, off_grid: bool, job: Job) -> Entry:
    """Generate one scene of MS3 and write all files that AVSBench-semantic has for a video."""
    split, index = job
    scene = sample_scene(scene_rng(split, seed, index), subset="ms3", off_grid=off_grid)
    heard = "_".join(voice.category for voice in scene.voices) or "noise"
    entry = Entry(split, f"avss_{split}_{index:06d}", heard)
    folder = root / semantic.GROUP / entry.name
    semantic.write_stills(scene, folder)
    _write_wav(folder / "audio.wav", soundtrack(scene, RATE_HZ))
    if off_grid:
        _write_sounds(folder / "sounds.csv", scene)
    return entry


def _without_jpeg(scene: Scene) -> Scene:
    """Return the scene without JPEG artefacts: the video encoder adds its own."""
    return replace(scene, camera=replace(scene.camera, jpeg_quality=None))


class _Paths(NamedTuple):
    """Paths of the files of one video."""

    frames: Path
    masks: Path
    sound: Path
    video: Path
    frame_masks: Path
    sounds: Path

    @classmethod
    def of(cls, data: Path, subset: SynthSubset, entry: Entry) -> "_Paths":
        name = entry.name
        group = Path(entry.split) / entry.category if subset == "s4" else Path(entry.split)
        loose = group if subset == "s4" else Path()  # MS3 has no split here
        return cls(
            frames=data / "visual_frames" / loose / name,
            masks=data / "gt_masks" / group / name,
            sound=data / "audio_wav" / group / f"{name}.wav",
            video=data / "raw_videos" / loose / f"{name}.mp4",
            frame_masks=data / "frame_masks" / name,
            sounds=data / "sounds" / f"{name}.csv",
        )


def _write_stills(scene: Scene, subset: SynthSubset, entry: Entry, paths: _Paths) -> None:
    """Write one frame per second, and its mask if AVSBench has one."""
    renderer = Renderer(scene, FRAME_PX, FRAME_PX)
    frame_name = entry.name if subset == "s4" else f"{entry.name}.mp4"
    for second in range(scene.duration_s):
        time_s = second + FRAME_OFFSET_S
        rgb, ids = renderer.frame(time_s)
        still = paths.frames / f"{frame_name}_{second + 1}.png"
        still.write_bytes(encode_png(rgb))
        if subset == "s4" and entry.split == "train" and second > 0:
            continue  # only the first second of S4's training videos is labelled
        mask = sounding_mask(scene, ids, time_s).astype(np.uint8) * 255
        options = (cv2.IMWRITE_PNG_BILEVEL, 1) if subset == "s4" else ()
        label = paths.masks / f"{entry.name}_{second + 1}.png"
        label.write_bytes(encode_png(mask, *options))


def _write_wav(path: Path, sound: Float32Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, len(sound), "NONE", ""))
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())


def _write_sounds(path: Path, scene: Scene) -> None:
    """Write when each source sounds, in view or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("name", "in_view", "start_s", "end_s"))
        for voice in scene.voices:
            in_view = "no" if voice is scene.off_screen else "yes"
            table.writerows((voice.category, in_view, *turn) for turn in voice.turns)


def _write_csv(path: Path, subset: SynthSubset, entries: list[Entry]) -> None:
    """Write the columns in AVSBench's order, which its loaders read by position."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if subset == "s4":
            table.writerow(("name", "start", "category", "split"))
            table.writerows((e.name, 0, e.category, e.split) for e in entries)
        else:
            table.writerow(("name", "split"))
            table.writerows((e.name, e.split) for e in entries)


def _write_manifest(
    path: Path, subset: Subset, seed: int, sizes: dict[Split, int], *, off_grid: bool
) -> None:
    manifest: dict[str, object] = {
        "generator": "av2tsam data synth",
        "generator_version": GENERATOR_VERSION,
        "subset": subset,
        "seed": seed,
        "videos": sum(sizes.values()),
        "split_sizes": sizes,
        "frame_px": FRAME_PX,
        "frame_share_of_second": FRAME_OFFSET_S,
        "sound_rate_hz": RATE_HZ,
    }
    if subset != "avss":  # AVSBench-semantic has no raw videos
        manifest["video_rate"] = VIDEO_RATE_OFF_GRID if off_grid else VIDEO_RATE
    if off_grid:
        manifest["off_grid"] = True
    path.write_text(json.dumps(manifest, indent=2) + "\n")
