"""Quality and speed of `segment --fps`, compared with running the network on every frame.

    python benchmarks/interpolation.py --fps 5,10

The videos are the samples and generated scenes, at normal and at three times the speed. Masks
between key frames are computed with three methods: optical flow, as in `segment`; linear
interpolation of the logits of two key frames, which are held after the last key frame of a second;
and holding the logits throughout.

The last line is JSON. For each rate it has the mean IoU between each method and the network on
every frame, over the frames between key frames: `flow`, `linear` and `hold` for samples and scenes,
`fast_flow` and so on for the fast scenes. `speed` is the speed with optical flow relative to the
network on every frame; it includes decoding, but not drawing and encoding.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import compress
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from clips import RATE, SIZE, Run, drawn_scene, ious, segment, write
from machine import facts
from networks import PRECISION_HELP
from torch import Tensor

from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.timeline import schedule
from av2tsam_cli.timeline.motion import KeyFrame, interpolate
from av2tsam_cli.values import Frame

SAMPLES = Path(__file__).parents[1] / "sample_media"
NAMES = ("solo", "duet", "crowd")
FAST = 3
"""Speed of the fast scenes, which are played forwards and backwards."""


def main() -> None:
    """Measure every rate and print the agreement on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", default="5,10", help=f"masks per second, of {RATE}")
    parser.add_argument(
        "--scenes", type=int, default=6, help="number of generated scenes, of five seconds"
    )
    parser.add_argument("--seconds", type=float, help="use only the start of each video")
    parser.add_argument("--precision", default="fp32", help=PRECISION_HELP)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    model = load_model("nano", device=args.device, precision=args.precision)
    rates = [Fraction(rate) for rate in args.fps.split(",")]
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with TemporaryDirectory() as folder:
        for video, group in videos(Path(folder), args.scenes):
            every = segment(video, model, reuse=None, end=args.seconds)
            for rate in rates:
                result = compare(video, model, every, fps=rate, end=args.seconds)
                print(
                    json.dumps({"video": video.stem, "fps": str(rate), **means(result)}), flush=True
                )
                for name, values in result.items():
                    found[str(rate)][name if name == "speed" else group + name] += values
    settings = {"precision": model.precision, "scenes": args.scenes, "seconds": args.seconds}
    print(
        json.dumps(
            {"fps": {k: means(v) for k, v in found.items()}} | settings | facts(model.device)
        )
    )


def videos(folder: Path, scenes: int) -> Iterator[tuple[Path, str]]:
    """Yield each video with the prefix of its results."""
    for name in NAMES:
        yield SAMPLES / f"{name}.mp4", ""
    for index in range(scenes):
        scene = drawn_scene(index)
        renderer, whole_s = Renderer(scene, *SIZE), scene.duration_s
        times_s = [k / RATE for k in range(whole_s * RATE)]
        frames = (renderer.frame(time_s)[0] for time_s in times_s)
        yield write(folder / f"scene{index}.mp4", scene, frames), ""
        there_and_back_s = (abs(FAST * t % (2 * whole_s) - whole_s) for t in times_s)
        frames = (renderer.frame(time_s)[0] for time_s in there_and_back_s)
        yield write(folder / f"fast{index}.mp4", scene, frames), "fast_"


def compare(video: Path, model: LoadedModel, every: Run, **options: Any) -> dict[str, list[float]]:
    """Return the IoUs of the frames between key frames for each method, and the speed with flow."""
    result: dict[str, list[float]] = {}
    for name, method in {"flow": interpolate, "linear": linear, "hold": hold}.items():
        with patch.object(schedule, "interpolate", method):
            run = segment(video, model, reuse=None, **options)
        result[name] = list(compress(ious(run.masks, every.masks), run.followed))
        if name == "flow":
            result["speed"] = [every.wall_s / run.wall_s]
    return result


def linear(frame: Frame, before: KeyFrame, after: KeyFrame | None) -> Tensor:
    """Interpolate the logits of two key frames linearly."""
    if after is None:
        return before.logits
    share = (frame.time_s - before.frame.time_s) / (after.frame.time_s - before.frame.time_s)
    return before.logits + share * (after.logits - before.logits)


def hold(_frame: Frame, before: KeyFrame, _after: KeyFrame | None) -> Tensor:
    """Return the logits of the last key frame."""
    return before.logits


def means(results: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean of every list that is not empty."""
    return {name: round(fmean(values), 4) for name, values in results.items() if values}


if __name__ == "__main__":
    main()
