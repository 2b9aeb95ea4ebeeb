"""How close the edges of masks are to the exact ones, with and without `refine`, and its time.

    python benchmarks/edges.py --scenes 24 --heights 1080,2160

Generated scenes with exact masks are drawn at each height, in several kinds: `drawn`; `blurred`,
as by a lens; `moving`, blurred along one direction; `noisy`; `faint`, at a quarter of the contrast;
and `h264`, at a constant rate factor of 30. `--picture FILE MASK` adds a photograph with its mask,
8-bit greyscale, enlarged to each height.

Each picture has these logits:

- `nano`: those of nano, from the picture and the sound. Scenes in which it misses the object (an
  IoU below 0.3) are left out. There are none for photographs.
- `exact-64`, `exact-256`: the exact mask reduced to the network's size, so that only the enlarging
  is measured.
- `off-64`, `off-256`: the same after edges were moved by half a cell (root mean square), as the
  edges of a network are.

The last line is JSON. For each height, kind and logits, `enlarged` and `refined` have:

- `f`: boundary F, the harmonic mean of precision and recall of the boundary pixels, where pixels
  up to 2 pixels apart at 1080p match (`px` at other heights: in proportion, at least 1).
- `iou`: mean IoU with the exact mask; `least_iou` is that of the worst picture.
- `ms`: CPU time per frame, median, on one core.

`worse` is the share of pictures whose IoU falls by more than 0.005.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from clips import ious
from machine import facts

from av2tsam_cli.evaluation.davis import boundary
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.masks import native_masks
from av2tsam_cli.media.audio import split_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.synth.clips import sounding_mask
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.values import AudioWindow, BoolArray, Float32Array, UInt8Array

TIME_S = 2.5
"""The time of the frame that is used of a scene."""
LEAST_SHARE = 0.005
"""Scenes whose object covers less of the frame are left out."""
FOUND_IOU = 0.3
"""nano finds an object from this IoU on."""
TOLERANCE_SHARE = 2 / 1080
"""Distance in which boundary pixels match, as a share of the frame's height."""
OFF_CELLS = 0.5
"""Root mean square of the distance by which the edges of `off` logits move, in cells."""
MOST_LOGIT = 6.0
"""Logit of a cell that is covered completely."""
WORSE_BY = 0.005
"""Fall of the IoU from which on a picture counts as worse."""


@dataclass(frozen=True)
class Picture:
    """A picture with the exact mask of an object."""

    rgb: UInt8Array
    """Pixels, uint8, (H, W, 3), RGB."""
    exact: BoolArray
    """The mask, (H, W)."""
    window: AudioWindow | None = None
    """The second of sound; None for a photograph."""


def main() -> None:
    """Measure all heights, kinds and logits, and print everything on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=24, help="number of scenes")
    parser.add_argument("--heights", default="1080", help="heights in pixels")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of pictures")
    parser.add_argument("--logits", default="nano,exact-64,exact-256,off-64,off-256")
    parser.add_argument(
        "--picture", nargs=2, type=Path, action="append", default=[], metavar=("FILE", "MASK")
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    model = load_model("nano", device="cpu", precision="fp32")
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for height in map(int, args.heights.split(",")):
        pictures = [*scenes(args.scenes, height, Segmenter(model).rate_hz)]
        pictures += [photograph(file, mask, height) for file, mask in args.picture]
        for kind in args.kinds.split(","):
            shown = [KINDS[kind](each.rgb, index) for index, each in enumerate(pictures)]
            for logits in args.logits.split(","):
                measured = measure(pictures, shown, logits, model)
                report.setdefault(str(height), {}).setdefault(kind, {})[logits] = measured
                print(json.dumps({f"{height} {kind} {logits}": measured}), flush=True)
    settings = {"scenes": args.scenes, "photographs": len(args.picture)}
    print(json.dumps({"edges": report} | settings | facts()))


def scenes(number: int, height: int, rate_hz: int) -> Iterator[Picture]:
    """Yield a frame of each scene in which an object sounds."""
    return islice(filter(None, (drawn(index, height, rate_hz) for index in count())), number)


def drawn(index: int, height: int, rate_hz: int) -> Picture | None:
    """Return a frame of a scene; None if the object that sounds is hardly in view."""
    scene = sample_scene(scene_rng("test", 19, index), subset="s4")
    rgb, regions = Renderer(scene, 2 * round(height * scene.width / 2), height).frame(TIME_S)
    exact = sounding_mask(scene, regions, TIME_S)
    if exact.mean() < LEAST_SHARE:
        return None
    windows = split_windows(soundtrack(scene, rate_hz), rate_hz, rate_hz=rate_hz)
    return Picture(rgb, exact, next(islice(windows, int(TIME_S), None)))


def photograph(file: Path, mask: Path, height: int) -> Picture:
    """Read a picture and its mask, enlarged to a height."""
    rgb = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    inside = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    size = (round(rgb.shape[1] * height / rgb.shape[0]), height)
    enlarged = cv2.resize(inside, size, interpolation=cv2.INTER_CUBIC) > 127
    return Picture(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)), enlarged)


def measure(
    pictures: list[Picture], shown: list[UInt8Array], logits: str, model: LoadedModel
) -> dict[str, Any]:
    """Compare the masks of all pictures with the exact ones."""
    resize = model.network.text_sam.resize
    scores: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for index, (picture, rgb) in enumerate(zip(pictures, shown, strict=True)):
        values = logits_of(picture, rgb, logits, index, model)
        if values is None:
            continue
        for edges in (False, True):
            began_s = time.thread_time()
            with torch_threads(1):
                labels, _ = native_masks(values, rgb, 0.5, resize=resize, edges=edges)
            took_s = time.thread_time() - began_s
            mask = labels > 0
            iou = ious([mask], [picture.exact])[0]
            if logits == "nano" and not edges and iou < FOUND_IOU:
                break
            scores[edges].append((boundary_f(mask, picture.exact), iou, took_s))
    result: dict[str, Any] = {"pictures": len(scores[True])}
    if not scores[True]:
        return result
    for name, edges in {"enlarged": False, "refined": True}.items():
        f, iou, took_s = zip(*scores[edges], strict=True)
        result[name] = {
            "f": round(statistics.fmean(f), 3),
            "iou": round(statistics.fmean(iou), 4),
            "least_iou": round(min(iou), 3),
            "ms": round(1000 * statistics.median(took_s), 1),
        }
    pairs = zip(scores[False], scores[True], strict=True)
    worse = [after[1] < before[1] - WORSE_BY for before, after in pairs]
    result["worse"] = round(statistics.fmean(worse), 3)
    return result


def boundary_f(found: BoolArray, exact: BoolArray) -> float:
    """Return the boundary F of a mask, as `evaluation.davis` defines it, with less tolerance."""
    ours, true = boundary(found), boundary(exact)
    if not (ours.any() and true.any()):
        return float(ours.any() == true.any())
    px = max(1, round(TOLERANCE_SHARE * exact.shape[0]))
    y, x = np.mgrid[-px : px + 1, -px : px + 1]
    disk = (x * x + y * y <= px * px).astype(np.uint8)
    precision = cv2.dilate(true.view(np.uint8), disk)[ours].mean()
    recall = cv2.dilate(ours.view(np.uint8), disk)[true].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def logits_of(
    picture: Picture, rgb: UInt8Array, logits: str, index: int, model: LoadedModel
) -> torch.Tensor | None:
    """Return logits (1, h, w) for a picture; None if there are none."""
    if logits == "nano":
        if picture.window is None:
            return None
        segmenter = Segmenter(model)
        return segmenter.source_logits(segmenter.prepare([rgb]), [picture.window])[0]
    kind, _, cells = logits.partition("-")
    side = int(cells)
    mask = picture.exact.astype(np.float32)
    if kind == "off":
        mask = moved(mask, side, index)
    small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy((2 * small - 1) * np.float32(MOST_LOGIT))[None]


def moved(mask: Float32Array, side: int, seed: int) -> Float32Array:
    """Move the edges of a mask (H, W) to and fro, smoothly along the edge."""
    height, width = mask.shape
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(12, 12, 2)).astype(np.float32)
    shift = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    shift *= OFF_CELLS / shift.std()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + shift[..., 0] * (width / side), y + shift[..., 1] * (height / side)
    place = (x.astype(np.float32), y.astype(np.float32))
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(mask, *place, cv2.INTER_LINEAR, borderMode=border))


def as_drawn(rgb: UInt8Array, _index: int) -> UInt8Array:
    """Return the picture itself."""
    return rgb


def blurred(rgb: UInt8Array, _index: int) -> UInt8Array:
    """Blur by 2 pixels at 1080p."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), rgb.shape[0] / 540))


def moving(rgb: UInt8Array, _index: int) -> UInt8Array:
    """Blur over 12 pixels from left to right at 1080p."""
    return np.asarray(cv2.blur(rgb, (max(1, round(rgb.shape[0] / 90)), 1)))


def noisy(rgb: UInt8Array, index: int) -> UInt8Array:
    """Add noise with a standard deviation of 12 levels."""
    noise = np.random.default_rng(index).normal(0, 12, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def faint(rgb: UInt8Array, _index: int) -> UInt8Array:
    """Reduce the contrast to a quarter."""
    return np.asarray(cv2.convertScaleAbs(rgb, alpha=0.25, beta=90))


def h264(rgb: UInt8Array, _index: int) -> UInt8Array:
    """Encode with H.264, and decode."""
    height, width = (side // 2 * 2 for side in rgb.shape[:2])
    even = np.ascontiguousarray(rgb[:height, :width])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        options = {"preset": "medium", "crf": "30", "threads": "1"}
        sound = np.zeros(16_000, np.float32)
        size = (width, height)
        write_clip(file, [even] * 3, sound, size=size, rate=25, rate_hz=16_000, h264=options)
        *_, last = read_frames(probe(file))
    return np.asarray(
        cv2.copyMakeBorder(
            last.rgb, 0, rgb.shape[0] - height, 0, rgb.shape[1] - width, cv2.BORDER_REPLICATE
        )
    )


KINDS: dict[str, Callable[[UInt8Array, int], UInt8Array]] = {
    "drawn": as_drawn,
    "blurred": blurred,
    "moving": moving,
    "noisy": noisy,
    "faint": faint,
    "h264": h264,
}


if __name__ == "__main__":
    main()
