"""Time until the help appears, and until the first mask of a video.

    python benchmarks/startup.py --runs 20

`help_over_python` is the time of `av2tsam --help`, the installed command, divided by that of
`python -c pass`: medians of alternating runs. `torch_imported` tells whether the help imports
torch, which takes seconds. `first_frame_s` is the time from the start of a process to the first
mask of a video.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from machine import facts
from networks import checkpoint

from av2tsam_cli.model.config import PRESETS

VIDEO = Path(__file__).parents[1] / "sample_media" / "solo.mp4"
COMMAND = Path(sys.executable).with_name("av2tsam")
FIRST_FRAME = """
import sys, time
from av2tsam_cli.pipeline import iter_masks
frames = iter_masks(sys.argv[1], model=sys.argv[2])
next(frames)
print(time.time())
frames.close()
"""


def main() -> None:
    """Measure both and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--runs", type=int, default=10, help="runs of the help")
    parser.add_argument("--first-frames", type=int, default=3, help="runs of the first frame")
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--weights", type=Path, help="folder in which to keep random weights")
    args = parser.parse_args()
    commands = {"python": [sys.executable, "-c", "pass"], "help": [str(COMMAND), "--help"]}
    taken_s: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.runs + 1):
        for name, command in commands.items():
            taken_s[name].append(time_command(command))
    python_s, help_s = (statistics.median(runs[1:]) for runs in taken_s.values())
    with checkpoint(args.preset, args.weights) as model:
        first_s = [time_first_frame(args.video, model) for _ in range(args.first_frames)]
    result = {
        "python_s": round(python_s, 4),
        "help_s": round(help_s, 4),
        "help_over_python": round(help_s / python_s, 3),
        "torch_imported": imports_torch(["--help"]),
        "first_frame_s": round(statistics.median(first_s), 3),
    }
    settings = {"preset": args.preset, "runs": args.runs, "video": args.video.name}
    print(json.dumps(result | settings | facts()))


def time_command(command: Sequence[str]) -> float:
    """Return the seconds that a command takes."""
    start_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def imports_torch(arguments: Sequence[str]) -> bool:
    """Return whether the command with these arguments imports torch."""
    command = [sys.executable, "-X", "importtime", "-m", "av2tsam_cli", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return "torch" in {line.rpartition("|")[2].strip() for line in output.splitlines()}


def time_first_frame(video: Path, model: Path) -> float:
    """Return the seconds from the start of a process to its first mask."""
    command = [sys.executable, "-c", FIRST_FRAME, str(video), str(model)]
    start_s = time.time()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output) - start_s


if __name__ == "__main__":
    main()
