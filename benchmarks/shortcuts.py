"""Savings and quality of `segment --fps` and `--reuse`, compared with a mask for every frame.

    python benchmarks/shortcuts.py --scenes 12 --videos clip.mp4

Generated scenes of five seconds at 25 frames per second, encoded with H.264, are segmented from
their sound, and from a text prompt that names the object. `still`: nothing moves, with sensor
noise. `slow`: at a third of the speed. `normal`. `fast`: at three times the speed, forwards and
backwards. `cut`: three scenes in a row. `slides`: three still pictures. `doubled`: every frame
twice. `--videos` adds files.

The last line is JSON. For each kind and each way to save time:

- `computed`: the share of frames that the network processed.
- `iou`: mean IoU with masks of the network at every frame; `lowest_video` is the mean of the worst
  video, `lowest_frame` the IoU of the worst frame.
- `exact_iou`: mean IoU with the exact masks; that of the network at every frame is under `all`.
- `speed`, relative to the network at every frame, including decoding but not encoding. It is that
  of nano, which takes milliseconds per mask; a full-size network takes seconds.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from clips import RATE, RATE_HZ, SIZE, Run, drawn_scene, ious, segment, write
from machine import facts
from networks import PRECISION_HELP

from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

WAYS: dict[str, dict[str, Any]] = {
    "all": {"fps": "all", "reuse": None},
    "fps auto": {"fps": "auto"},
    "fps 5": {"fps": 5.0, "reuse": None},
    "reuse 1": {"fps": "all", "reuse": 1.0},
}
"""Options of `segment` for each way; `all` is what the others are compared with."""
NOISE = 2.0
"""Standard deviation of the sensor noise of `still`, in grey levels."""
FAST, SLOW = 3.0, 1 / 3
"""Speeds of the fast and the slow scenes."""
QUALITIES = (18, 23, 28)
"""Constant rate factors of H.264: nearly lossless, the default, and coarse."""
Shown = Iterator[tuple[UInt8Array, Scene, UInt8Array]]
"""Frames with the scene that they show and its visible regions; see `Renderer.frame`."""


@dataclass(frozen=True)
class Video:
    """A video to segment."""

    path: Path
    """The file."""
    text: str | None
    """The text prompt; None to segment the sound source."""
    exact: list[BoolArray] = field(default_factory=list)
    """The exact mask of every frame, (H, W); empty if they are not known."""


def main() -> None:
    """Measure every way on every kind of video and print the result on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=12, help="number of scenes of each kind")
    parser.add_argument("--seconds", type=float, help="use only the start of each video")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of scenes")
    parser.add_argument("--videos", nargs="*", type=Path, default=[], help="files to segment too")
    parser.add_argument("--smooth", action="store_true", help="smooth masks over time, as usual")
    parser.add_argument("--precision", default="fp32", help=PRECISION_HELP)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    model = load_model("nano", device=args.device, precision=args.precision)
    common = {"model": model, "end": args.seconds, "smooth": args.smooth}
    results: dict[str, dict[str, dict[str, float]]] = {}

    def measure(name: str, videos: Iterator[Video]) -> None:
        runs: dict[str, list[Run]] = defaultdict(list)
        exact = []
        for video in videos:
            exact.append(video.exact)
            for way, options in WAYS.items():
                runs[way].append(segment(video.path, text=video.text, **common, **options))
        results[name] = {way: compare(runs["all"], runs[way], exact) for way in WAYS}
        print(json.dumps({name: results[name]}), flush=True)

    with TemporaryDirectory() as folder:
        for kind in args.kinds.split(",") if args.scenes else ():
            for prompt in ("sound", "text"):
                videos = scenes(Path(folder), kind, prompt, args.scenes, args.seconds)
                measure(f"{kind}, {prompt}", videos)
    for path in args.videos:
        measure(path.name, iter([Video(path, None)]))
    settings = {name: getattr(args, name) for name in ("scenes", "seconds", "smooth")}
    print(json.dumps({"shortcuts": results} | settings | facts(model.device)))


def scenes(
    folder: Path, kind: str, prompt: str, number: int, seconds: float | None
) -> Iterator[Video]:
    """Yield videos of one kind, cycling through the qualities."""
    stop = None if seconds is None else round(seconds * RATE)
    in_view = (scene for scene in map(drawn_scene, count()) if sources(scene))
    for index, scene in enumerate(islice(in_view, number)):
        name = sources(scene)[0] if prompt == "text" else None
        exact: list[BoolArray] = []
        shown, sound = KINDS[kind](scene, index)
        path = folder / "video.mp4"
        write(
            path,
            frames(islice(shown, stop), name, exact),
            sound,
            crf=QUALITIES[index % len(QUALITIES)],
        )
        yield Video(path, name and f"the {name}", exact)


def frames(shown: Shown, name: str | None, exact: list[BoolArray]) -> Iterator[UInt8Array]:
    """Yield frames, and add their exact masks to a list."""
    for rgb, scene, regions in shown:
        exact.append(visible(scene, regions, name))
        yield rgb


def sources(scene: Scene) -> list[str]:
    """Return the categories of the objects that sound."""
    return [each.category for each in scene.instances if each.voice]


def visible(scene: Scene, regions: UInt8Array, name: str | None) -> BoolArray:
    """Return where the objects of a category are visible; with None, the objects that sound."""
    wanted = [name] if name else sources(scene)
    numbers = [k + 1 for k, each in enumerate(scene.instances) if each.category in wanted]
    return np.asarray(np.isin(regions, numbers), bool)


def shown_at(scene: Scene, times_s: Sequence[float]) -> Shown:
    """Yield the frames of a scene at some times in seconds."""
    renderer = Renderer(scene, *SIZE)
    for time_s in times_s:
        rgb, regions = renderer.frame(time_s)
        yield rgb, scene, regions


def clock(scene: Scene) -> list[float]:
    """Return the time of each frame of a scene in seconds."""
    return [k / RATE for k in range(scene.duration_s * RATE)]


def still(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Stop the objects and the camera, and add new noise to every frame."""
    rest = {"drift": (0.0, 0.0), "sway": (0.0, 0.0), "bounce": 0.0, "rock": 0.0, "pulse": 0.0}
    fixed = {"drift": (0.0, 0.0), "flicker": 0.0, "noise": NOISE, "jpeg_quality": None}
    filmed = replace(
        scene,
        instances=tuple(
            replace(one, motion=replace(one.motion, **rest)) for one in scene.instances
        ),
        camera=replace(scene.camera, **fixed),
    )
    return shown_at(filmed, clock(scene)), soundtrack(scene, RATE_HZ)


def slow(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Show the start of a scene slowly."""
    return shown_at(scene, [SLOW * t for t in clock(scene)]), soundtrack(scene, RATE_HZ)


def normal(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Show a scene."""
    return shown_at(scene, clock(scene)), soundtrack(scene, RATE_HZ)


def fast(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Show a scene fast, forwards and backwards."""
    whole_s = scene.duration_s
    times_s = [abs(FAST * t % (2 * whole_s) - whole_s) for t in clock(scene)]
    return shown_at(scene, times_s), soundtrack(scene, RATE_HZ)


def cut(scene: Scene, index: int) -> tuple[Shown, Float32Array]:
    """Show a part of a scene and of two others."""
    parts = (scene, drawn_scene(1000 + 2 * index), drawn_scene(1001 + 2 * index))
    frames = scene.duration_s * RATE // len(parts)
    samples = frames * RATE_HZ // RATE
    shown = (each for part in parts for each in islice(shown_at(part, clock(part)), frames))
    return shown, np.concatenate([soundtrack(part, RATE_HZ)[:samples] for part in parts])


def slides(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Show three frames of a scene, each for a third of the time."""
    every_s = scene.duration_s / 3
    times_s = [t // every_s * every_s for t in clock(scene)]
    quiet = replace(scene, camera=replace(scene.camera, noise=0.0, jpeg_quality=None))
    return shown_at(quiet, times_s), soundtrack(scene, RATE_HZ)


def doubled(scene: Scene, _index: int) -> tuple[Shown, Float32Array]:
    """Show every second frame twice."""
    times_s = [k // 2 * 2 / RATE for k in range(scene.duration_s * RATE)]
    return shown_at(scene, times_s), soundtrack(scene, RATE_HZ)


KINDS: dict[str, Callable[[Scene, int], tuple[Shown, Float32Array]]] = {
    kind.__name__: kind for kind in (still, slow, normal, fast, cut, slides, doubled)
}


def compare(
    every: Sequence[Run], runs: Sequence[Run], exact: Sequence[list[BoolArray]]
) -> dict[str, float]:
    """Return the share computed and the agreement of the masks, over all videos."""
    agreement = [ious(a.masks, b.masks) for a, b in zip(runs, every, strict=True)]
    computed = [each for run in runs for each in run.computed]
    found = {
        "computed": fmean(computed),
        "iou": fmean(iou for video in agreement for iou in video),
        "lowest_video": min(map(fmean, agreement)),
        "lowest_frame": min(map(min, agreement)),
        "speed": sum(run.wall_s for run in every) / sum(run.wall_s for run in runs),
    }
    if all(exact):
        pairs = zip(runs, exact, strict=True)
        found["exact_iou"] = fmean(
            iou for run, masks in pairs for iou in ious(run.masks, masks[: len(run.masks)])
        )
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
