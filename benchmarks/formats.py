"""Time of `segment` for each output format, relative to an overlay video.

    python benchmarks/formats.py --runs 5

Every run writes all formats of one video with nano, in turn, so that other programs slow down all
of them; the shortest run of each counts. `over_video` is its time divided by that of the overlay
video, once in wall time and once in CPU time.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import facts

from av2tsam_cli import process
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.pipeline import segment_video
from av2tsam_cli.segment_options import Format

VIDEO = Path(__file__).parents[1] / "sample_media" / "duet.mp4"
TARGETS: dict[str, tuple[str, Format | None]] = {
    "video": ("overlay.mp4", None),
    "matte": ("matte.mp4", "matte"),
    "cutout .mov": ("cutout.mov", "cutout"),
    "cutout .webm": ("cutout.webm", "cutout"),
    "masks": ("masks", "masks"),
    "mattes": ("mattes", "mattes"),
    "cutouts": ("cutouts", "cutouts"),
}
"""What is written: a name, and the format if the name does not tell."""


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--end", type=float, help="seconds of the video to use")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    process.tune_process()
    model = load_model(args.model)
    wall, cpu = measure(args.video, model, args.runs, args.end)
    result = {
        "seconds": {name: round(value, 2) for name, value in wall.items()},
        "over_video": {name: round(value / wall["video"], 3) for name, value in wall.items()},
        "over_video_cpu": {name: round(value / cpu["video"], 3) for name, value in cpu.items()},
    }
    print(json.dumps(facts(model.device) | {"precision": model.precision} | result))


def measure(
    video: Path, model: LoadedModel, runs: int, end: float | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the shortest wall time and the shortest CPU time of each format, in seconds."""
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        for _ in range(runs):
            for name, (target, kind) in TARGETS.items():

                def run(target: str = target, kind: Format | None = kind) -> object:
                    out = Path(folder) / target
                    return segment_video(
                        video, out, format=kind, model=model, end=end, overwrite=True
                    )

                wall_s, cpu_s = taken(run)
                wall[name] = min(wall_s, wall.get(name, wall_s))
                cpu[name] = min(cpu_s, cpu.get(name, cpu_s))
    return wall, cpu


def taken(run: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the CPU time of a call in seconds."""
    began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began[0], time.process_time() - began[1]


if __name__ == "__main__":
    main()
