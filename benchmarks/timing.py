"""How closely masks follow the sound, and how steady they are.

    python benchmarks/timing.py --scenes 40 --set reuse=off

Clips with exact masks are segmented in memory: the samples with their first tenths of a second cut
off, so that changes fall at other times, and generated scenes with the same objects whose sources
change anywhere (`off_grid`) or only at whole seconds (`on_grid`). Half of the scenes have one
source. `--videos` adds files of which the exact masks are not known.

The last line is JSON. For each sample, `miou` and `below_half` have a value for each cut. For
scenes and samples:

- `miou`: mean IoU over frames; it is 1 for two empty masks. `below_half`: the share of frames with
  an IoU below 0.5.
- `onset`, `offset`: for each change of an object in the exact masks, the distance to the nearest
  change of the same kind in the result: median and 90th percentile in milliseconds of those within
  a second, the share `not_found` within a second, and the number of `changes`. An object is on in a
  frame if more than half of its visible region is in the mask. `false_per_minute` counts the other
  changes of the result.
- `steadiness`: mean IoU of consecutive masks, and of the exact masks of the same frames as
  `exact_steadiness`, which is below 1 because objects move. Only frames with a right mask count
  (IoU of 0.5 or more), and no true changes, so that errors of timing do not. `flicker`: mean
  difference between the IoUs of two such consecutive frames with their exact masks.
- `blinks_per_minute`: how often the mask vanishes for one to three frames.
- `largest_jump`: largest change, in grey levels, of the overlay's mean luma from one frame to the
  next, less the change of the video itself.
- `computed`: the share of frames that the network processed.
"""

import argparse
import json
import multiprocessing
import runpy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from clips import RATE, RATE_HZ, ious
from machine import facts
from networks import PRECISION_HELP

from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.outputs.overlay import overlay_drawer
from av2tsam_cli.pipeline import MaskedFrame, iter_masks, segment_frames
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

ROOT = Path(__file__).parents[1]
HEIGHT_PX = 360
NEAR_S = 1.0
"""A change of the result further from any change of the exact masks is another one."""
LEAST_SHARE = 0.0025
"""Objects that cover less of a frame at any time are not searched for changes."""
BLINK_FRAMES = 3
HALF = 0.5
KINDS = {"onset": 1, "offset": -1}
"""Changes of an object, and their signs in the difference of its states."""

Values = dict[str, list[float]]
"""What is measured in one or more clips, by name."""


@dataclass(frozen=True)
class Clip:
    """A video in memory whose exact masks are known. T frames, N objects."""

    frames: list[UInt8Array]
    """T times pixels, uint8, (H, W, 3), RGB."""
    sound: Float32Array
    """Mono samples, float32, at `RATE_HZ`."""
    regions: list[UInt8Array]
    """T times uint8, (H, W): n + 1 where object n is visible."""
    sounding: BoolArray
    """Whether each object sounds, bool, (T, N)."""

    def exact(self) -> list[BoolArray]:
        """Return the mask of the sounding objects of each frame."""
        return [
            np.concatenate([[False], on])[ids]
            for ids, on in zip(self.regions, self.sounding, strict=True)
        ]

    def part(self, start: int = 0, stop: int | None = None) -> "Clip":
        """Return the frames from `start` to before `stop` with their sound."""
        samples = slice(start * RATE_HZ // RATE, None if stop is None else stop * RATE_HZ // RATE)
        frames = slice(start, stop)
        regions, sounding = self.regions[frames], self.sounding[frames]
        return Clip(self.frames[frames], self.sound[samples], regions, sounding)


def main() -> None:
    """Measure the samples, the scenes and the videos, and print everything on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--hear", default="trained", choices=("trained", "words"))
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of `segment_frames`, such as reuse=off; can be repeated",
    )
    parser.add_argument("--samples", default="duet,crowd,relay", help="names; empty for none")
    parser.add_argument("--cuts", default="0,0.16,0.32,0.48,0.64,0.8", help="seconds to cut off")
    parser.add_argument("--scenes", type=int, default=40, help="number of scenes of each kind")
    parser.add_argument("--videos", nargs="*", type=Path, default=[], help="files without masks")
    parser.add_argument("--seconds", type=float, help="use only the start of each clip")
    parser.add_argument("--processes", type=int, default=2, help="for the scenes")
    parser.add_argument("--precision", default="fp32", help=PRECISION_HELP)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    options = {"hear": args.hear, **dict(map(parse_setting, args.set))}
    setup = Setup(args.model, args.device, args.precision, args.seconds, options)
    report: dict[str, Any] = {"samples": {}, "scenes": {}, "videos": {}}
    for name in filter(None, args.samples.split(",")):
        report["samples"][name] = setup.sample(name, [float(cut) for cut in args.cuts.split(",")])
        print(json.dumps({name: report["samples"][name]}), flush=True)
    for kind in ("off_grid", "on_grid") if args.scenes else ():
        scenes = [(index, kind == "off_grid") for index in range(args.scenes)]
        report["scenes"][kind] = summary(joined(map_scenes(setup, scenes, args.processes)))
        print(json.dumps({kind: report["scenes"][kind]}), flush=True)
    for path in args.videos:
        report["videos"][path.name] = setup.video(path)
        print(json.dumps({path.name: report["videos"][path.name]}), flush=True)
    model = setup.model
    settings = {"model": model.name, "precision": model.precision, "options": options}
    settings |= {"count": args.scenes, "seconds": args.seconds}
    print(json.dumps(report | settings | facts(model.device)))


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `name=value`; the value is JSON, `off` for None, or text."""
    name, _, value = text.partition("=")
    try:
        return name, None if value == "off" else json.loads(value)
    except json.JSONDecodeError:
        return name, value


@dataclass(frozen=True)
class Setup:
    """What all clips of a run have in common; small enough to be sent to other processes."""

    name: str
    device: str
    precision: str
    seconds: float | None
    options: dict[str, Any]

    @property
    def model(self) -> LoadedModel:
        """The model, loaded once per process."""
        return load(self.name, self.device, self.precision, self.options["hear"])

    def sample(self, name: str, cuts_s: Sequence[float]) -> dict[str, Any]:
        """Return the scores of a sample over all cuts, with the IoU for each."""
        whole = sample_clip(name)
        by_cut = {f"{cut_s:g}": self._score(whole.part(round(cut_s * RATE))) for cut_s in cuts_s}
        scores = summary(joined(by_cut.values()))
        for key in ("miou", "below_half"):
            scores[key] = {cut: summary(values)[key] for cut, values in by_cut.items()}
        mious = [*scores["miou"].values()]
        return {"mean_miou": mean(mious), "least_miou": min(mious)} | scores

    def scene(self, index_and_kind: tuple[int, bool]) -> Values:
        """Return what is measured in one scene; every second one has a single source."""
        index, off_grid = index_and_kind
        subset = ("ms3", "s4")[index % 2]
        scene = sample_scene(scene_rng("test", 9, index), subset=subset, off_grid=off_grid)
        return self._score(drawn_clip(scene, self.seconds))

    def video(self, path: Path) -> dict[str, Any]:
        """Return how steady the masks of a file are."""
        masked = iter_masks(path, model=self.model, end=self.seconds, **self.options)
        rate = float(probe(path).video[0].rate or RATE)
        return summary(segmented(masked)[1], rate)

    def _score(self, clip: Clip) -> Values:
        """Segment a clip and compare the result with the exact masks."""
        if self.seconds is not None:
            clip = clip.part(0, round(self.seconds * RATE))
        masked = segment_frames(
            clip.frames,
            clip.sound,
            frame_rate=RATE,
            sample_rate=RATE_HZ,
            model=self.model,
            **self.options,
        )
        masks, values = segmented(masked)
        exact = clip.exact()
        iou = np.array(ious(masks, exact))
        same = (clip.sounding[1:] == clip.sounding[:-1]).all(axis=1)
        same &= [bool(mask.any()) for mask in exact[1:]]
        same &= (iou[1:] >= HALF) & (iou[:-1] >= HALF)
        for name, which in {"steadiness": masks, "exact_steadiness": exact}.items():
            values[name] = np.array(ious(which[1:], which[:-1]))[same].tolist()
        values["flicker"] = np.abs(np.diff(iou))[same].tolist()
        return values | {"iou": iou.tolist()} | compare_changes(clip, masks)


@cache
def load(name: str, device: str, precision: str, hear: Any) -> LoadedModel:
    """Load the model; with several processes, each of them uses one thread."""
    return load_model(name, device=device, precision=precision, use=hear)


def map_scenes(setup: Setup, scenes: list[tuple[int, bool]], processes: int) -> Iterator[Values]:
    """Yield what is measured in each scene, in several processes if wanted."""
    if processes == 1:
        yield from map(setup.scene, scenes)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(setup.scene, scenes)


def sample_clip(name: str) -> Clip:
    """Return a sample as it is decoded, with the exact regions of its recipe."""
    recipe = runpy.run_path(str(ROOT / "recipes" / "samples" / "make.py"))
    scene = recipe["compose"](recipe["SAMPLES"][name])
    info = probe(ROOT / "sample_media" / f"{name}.mp4")
    sound = [window.samples for window in read_windows(info, rate_hz=RATE_HZ)]
    frames = [frame.rgb for frame in read_frames(info)]
    return replace(drawn_clip(scene), frames=frames, sound=np.concatenate(sound))


def drawn_clip(scene: Scene, seconds: float | None = None) -> Clip:
    """Draw a scene, or its start."""
    renderer = Renderer(scene, round(HEIGHT_PX * scene.width), HEIGHT_PX)
    times_s = [k / RATE for k in range(round((seconds or scene.duration_s) * RATE))]
    frames, regions = zip(*map(renderer.frame, times_s), strict=True)
    sounding = np.zeros((len(times_s), len(scene.instances)), bool)
    for row, time_s in zip(sounding, times_s, strict=True):
        row[list(scene.sounding(time_s))] = True
    return Clip([*frames], soundtrack(scene, RATE_HZ), [*regions], sounding)


def segmented(masked: Iterable[MaskedFrame]) -> tuple[list[BoolArray], Values]:
    """Return the masks, and how much they and the overlays change from frame to frame."""
    draw = overlay_drawer()
    masks, lumas, computed = [], [], []
    for each in masked:
        computed.append(float(each.origin == "computed"))
        masks.append(each.mask)
        overlay = draw(each)
        lumas.append((luma(overlay), luma(each.frame.rgb)))
    jumps = np.abs(np.diff(np.array(lumas), axis=0))
    pairs = [pair for pair in pairwise(masks) if pair[0].any() and pair[1].any()]
    return masks, {
        "steadiness": ious([a for a, _ in pairs], [b for _, b in pairs]),
        "jump": (jumps[:, 0] - jumps[:, 1]).tolist(),
        "blinks": [blinks(masks)],
        "computed": computed,
    }


def luma(rgb: UInt8Array) -> float:
    """Return the mean luma of a picture in grey levels."""
    return float(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).mean())


def blinks(masks: Sequence[BoolArray]) -> int:
    """Return how often the mask is empty for a few frames between frames in which it is not."""
    runs = [(empty, len([*run])) for empty, run in groupby(not mask.any() for mask in masks)]
    return sum(empty and length <= BLINK_FRAMES for empty, length in runs[1:-1])


def compare_changes(clip: Clip, masks: Sequence[BoolArray]) -> Values:
    """Return the errors in milliseconds, infinite where there is no change, and false changes."""
    sizes, covered = (
        np.array([np.bincount(ids[inside].ravel(), minlength=256) for ids, inside in pairs])
        for pairs in (
            zip(clip.regions, np.ones((len(masks), *masks[0].shape), bool), strict=True),
            zip(clip.regions, masks, strict=True),
        )
    )
    values: Values = {"onset": [], "offset": [], "false": [0.0]}
    for n in range(clip.sounding.shape[1]):
        if sizes[:, n + 1].min() < LEAST_SHARE * masks[0].size:
            continue
        on = covered[:, n + 1] > HALF * sizes[:, n + 1]
        for kind, sign in KINDS.items():
            true, found = (
                np.flatnonzero(np.diff(states.astype(int)) == sign) / RATE
                for states in (clip.sounding[:, n], on)
            )
            gaps = np.abs(found - true[:, None])  # (true, found)
            near = gaps.min(axis=1, initial=np.inf)
            values[kind] += [1000 * gap if gap <= NEAR_S else np.inf for gap in near.tolist()]
            matched = {
                int(row.argmin()) for row, gap in zip(gaps, near, strict=True) if gap <= NEAR_S
            }
            values["false"][0] += len(found) - len(matched)
    return values


def joined(parts: Iterable[Values]) -> Values:
    """Return the values of several clips together."""
    together: Values = defaultdict(list)
    for part in parts:
        for name, values in part.items():
            together[name] += values
    return together


def summary(values: Values, rate: float = RATE) -> dict[str, Any]:
    """Return the scores of one or more clips, as the description of this program lists them."""
    minutes = len(values["computed"]) / rate / 60
    scores: dict[str, Any] = {}
    if "iou" in values:
        scores["miou"] = mean(values["iou"])
        scores["below_half"] = mean([float(iou < HALF) for iou in values["iou"]])
        scores |= {kind: distances(values[kind]) for kind in KINDS}
        scores["false_per_minute"] = round(sum(values["false"]) / minutes, 2)
        scores |= {name: mean(values[name]) for name in ("flicker", "exact_steadiness")}
    return scores | {
        "steadiness": mean(values["steadiness"]),
        "blinks_per_minute": round(sum(values["blinks"]) / minutes, 2),
        "largest_jump": round(max(values["jump"]), 2),
        "computed": mean(values["computed"]),
    }


def distances(errors_ms: Sequence[float]) -> dict[str, float | None]:
    """Return the median and 90th percentile of what was found, and the share that was not."""
    found = [error for error in errors_ms if np.isfinite(error)]
    middle, most = np.percentile(found, (50, 90)).round().tolist() if found else (None, None)
    missed = 1 - len(found) / len(errors_ms) if errors_ms else 0.0
    shares = {"not_found": round(missed, 4), "changes": len(errors_ms)}
    return {"median_ms": middle, "p90_ms": most} | shares


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, rounded; None if there are no values."""
    return round(float(np.mean(values)), 4) if values else None


if __name__ == "__main__":
    main()
