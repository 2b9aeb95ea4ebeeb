"""Savings and quality of `segment --reuse`, compared with running the network on every frame.

    python benchmarks/reuse.py --reuse 1,2,4

The videos are generated scenes, encoded with H.264: `slides` (three still pictures), `tripod`
(nothing moves, with sensor noise), `doubled` (every frame twice), `still_camera` (only the objects
move) and `moving`. The last line is JSON. For each tolerance and kind: `skipped`, the fraction of
frames that the network did not process; the mean and the smallest IoU between the masks of these
frames and those of the network; and `speed`, relative to the network on every frame, including
decoding but not drawing and encoding.
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
"""Standard deviation of the sensor noise of `tripod`, in grey levels."""
QUALITIES = (18, 23, 28)
"""Constant rate factors of H.264: nearly lossless, the default, and coarse."""


def main() -> None:
    """Measure every tolerance and print the agreement on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reuse", default="1,2,4", help="tolerances in grey levels (0 to 255)")
    parser.add_argument(
        "--scenes", type=int, default=3, help="number of scenes of each kind, of five seconds"
    )
    parser.add_argument("--seconds", type=float, help="use only the start of each video")
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
                runs = [segment(v, model, reuse=float(level), end=args.seconds) for v in clips]
                results.setdefault(level, {})[kind] = compare(every, runs)
                print(
                    json.dumps({"reuse": level, "kind": kind, **results[level][kind]}), flush=True
                )
    settings = {"precision": model.precision, "scenes": args.scenes, "seconds": args.seconds}
    print(json.dumps({"reuse": results} | settings | facts(model.device)))


def videos(folder: Path, kind: str, scenes: int) -> Iterator[Path]:
    """Yield the scenes of one kind, cycling through the qualities."""
    for index in range(scenes):
        scene = drawn_scene(index)
        crf = QUALITIES[index % len(QUALITIES)]
        yield write(folder / f"{kind}{index}.mp4", scene, KINDS[kind](scene), crf=crf)


def slides(scene: Scene) -> Iterator[UInt8Array]:
    """Show three frames of a scene, each for a third of the time."""
    return frames(filmed(scene, noise=0.0), scene, every=-(-scene.duration_s * RATE // 3))


def tripod(scene: Scene) -> Iterator[UInt8Array]:
    """Stop the objects and add new noise to every frame."""
    rest = {"drift": (0.0, 0.0), "sway": (0.0, 0.0), "bounce": 0.0, "rock": 0.0, "pulse": 0.0}
    still = (replace(one, motion=replace(one.motion, **rest)) for one in scene.instances)
    return frames(filmed(replace(scene, instances=tuple(still)), noise=NOISE), scene)


def doubled(scene: Scene) -> Iterator[UInt8Array]:
    """Show every second frame twice."""
    return frames(Renderer(scene, *SIZE), scene, every=2)


def still_camera(scene: Scene) -> Iterator[UInt8Array]:
    """Fix the background while the objects move, without noise."""
    return frames(filmed(scene, noise=0.0), scene)


def moving(scene: Scene) -> Iterator[UInt8Array]:
    """Show the scene unchanged."""
    return frames(Renderer(scene, *SIZE), scene)


KINDS: dict[str, Callable[[Scene], Iterator[UInt8Array]]] = {
    kind.__name__: kind for kind in (slides, tripod, doubled, still_camera, moving)
}


def filmed(scene: Scene, noise: float) -> Renderer:
    """Return a renderer of the scene with a fixed camera."""
    fixed = {"drift": (0.0, 0.0), "flicker": 0.0, "noise": noise, "jpeg_quality": None}
    return Renderer(replace(scene, camera=replace(scene.camera, **fixed)), *SIZE)


def frames(renderer: Renderer, scene: Scene, every: int = 1) -> Iterator[UInt8Array]:
    """Yield a whole scene in which every frame is shown `every` times."""
    count = scene.duration_s * RATE
    return (renderer.frame(k // every * every / RATE)[0] for k in range(count))


def compare(every: list[Run], reusing: list[Run]) -> dict[str, float]:
    """Return the fraction skipped, and the agreement of the reused masks with the network's."""
    agreement = [
        pair
        for full, reused in zip(every, reusing, strict=True)
        for pair in zip(ious(reused.masks, full.masks), reused.repeats, strict=True)
    ]
    reused_iou = [iou for iou, repeats in agreement if repeats] or [1.0]
    return {
        "skipped": round(fmean(repeats for _, repeats in agreement), 3),
        "iou": round(fmean(reused_iou), 4),
        "least_iou": round(min(reused_iou), 4),
        "speed": round(sum(run.wall_s for run in every) / sum(run.wall_s for run in reusing), 2),
    }


if __name__ == "__main__":
    main()
