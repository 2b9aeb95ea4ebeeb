"""What `segment --reuse` saves, and how near its masks come to those made at every frame.

    python benchmarks/reuse.py --reuse 1,2,4

On drawn scenes, encoded with H.264: `slides` (nothing moves, three pictures), `tripod` (nothing
moves before a camera with noise), `doubled` (every picture twice), `still_camera` (only the objects
move) and `moving`. The last line is JSON. For each tolerance and kind: `skipped`, the share of the
frames that the network did not look at; the mean and the least IoU of these frames' masks with
those made at every frame; and `speed`, how many times as fast they are made, decoding included,
drawing and encoding not.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from clips import RATE, SIZE, Run, drawn_scene, ious, segment, write
from machine import facts
from networks import PRECISION_HELP

from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import UInt8Array

NOISE = 2.0
"""Standard deviation of the noise before the tripod's camera, in levels."""
QUALITIES = (18, 23, 28)
"""Constant rate factors of H.264: nearly without loss, the default, and coarse."""


def main() -> None:
    """Measure every tolerance and print the agreement last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reuse", default="1,2,4", help="tolerances, in levels of 0 to 255")
    parser.add_argument("--scenes", type=int, default=3, help="of five seconds, of each kind")
    parser.add_argument("--seconds", type=float, help="of each video, to be quick")
    parser.add_argument("--precision", default="fp32", help=PRECISION_HELP)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    model = load_model("nano", device=args.device, precision=args.precision)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind in KINDS:
        with TemporaryDirectory() as folder:
            clips = list(videos(Path(folder), kind, args.scenes))
            every = [segment(video, model, reuse=None, end=args.seconds) for video in clips]
            for level in args.reuse.split(","):
                ways = [segment(v, model, reuse=float(level), end=args.seconds) for v in clips]
                results.setdefault(level, {})[kind] = compare(every, ways)
                print(
                    json.dumps({"reuse": level, "kind": kind, **results[level][kind]}), flush=True
                )
    asked = {"precision": model.precision, "scenes": args.scenes, "seconds": args.seconds}
    print(json.dumps({"reuse": results} | asked | facts(model.device)))


def videos(folder: Path, kind: str, scenes: int) -> Iterator[Path]:
    """The scenes of one kind, in turns of each quality."""
    for index in range(scenes):
        scene = drawn_scene(index)
        crf = QUALITIES[index % len(QUALITIES)]
        yield write(folder / f"{kind}{index}.mp4", scene, KINDS[kind](scene), crf=crf)


def slides(scene: Scene) -> Iterator[UInt8Array]:
    """Three pictures of it, each for a third of the time."""
    return frames(filmed(scene, noise=0.0), scene, every=-(-scene.duration_s * RATE // 3))


def tripod(scene: Scene) -> Iterator[UInt8Array]:
    """Its objects keep still; each frame has a noise of its own."""
    rest = {"drift": (0.0, 0.0), "sway": (0.0, 0.0), "bounce": 0.0, "rock": 0.0, "pulse": 0.0}
    still = (replace(one, motion=replace(one.motion, **rest)) for one in scene.instances)
    return frames(filmed(replace(scene, instances=tuple(still)), noise=NOISE), scene)


def doubled(scene: Scene) -> Iterator[UInt8Array]:
    """Each second picture again in place of the next one."""
    return frames(Renderer(scene, *SIZE), scene, every=2)


def still_camera(scene: Scene) -> Iterator[UInt8Array]:
    """Its objects move before a background that does not; no noise gives them away."""
    return frames(filmed(scene, noise=0.0), scene)


def moving(scene: Scene) -> Iterator[UInt8Array]:
    """As it is."""
    return frames(Renderer(scene, *SIZE), scene)


KINDS: dict[str, Callable[[Scene], Iterator[UInt8Array]]] = {
    way.__name__: way for way in (slides, tripod, doubled, still_camera, moving)
}


def filmed(scene: Scene, noise: float) -> Renderer:
    """A scene before a camera that does not move."""
    fixed = {"drift": (0.0, 0.0), "flicker": 0.0, "noise": noise, "jpeg_quality": None}
    return Renderer(replace(scene, camera=replace(scene.camera, **fixed)), *SIZE)


def frames(renderer: Renderer, scene: Scene, every: int = 1) -> Iterator[UInt8Array]:
    """A whole scene, each `every`-th picture again in place of those after it."""
    count = scene.duration_s * RATE
    return (renderer.frame(k // every * every / RATE)[0] for k in range(count))


def compare(every: list[Run], ways: list[Run]) -> dict[str, float]:
    """What was skipped, and how far the reused masks agree with those made at every frame."""
    agreement = [
        pair
        for run, way in zip(every, ways, strict=True)
        for pair in zip(ious(way.masks, run.masks), way.repeats, strict=True)
    ]
    reused = [iou for iou, repeats in agreement if repeats] or [1.0]
    return {
        "skipped": round(fmean(repeats for _, repeats in agreement), 3),
        "iou": round(fmean(reused), 4),
        "least_iou": round(min(reused), 4),
        "speed": round(sum(run.wall_s for run in every) / sum(way.wall_s for way in ways), 2),
    }


if __name__ == "__main__":
    main()
