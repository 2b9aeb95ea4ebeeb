"""Peak memory of `av2tsam segment` against the length of the video.

    python benchmarks/memory.py --minutes 1,10

Generates a video of each length (320 x 180, 10 frames/s, with sound) and runs the command on each
in a new process. Prints one JSON line per length. The last line has `rss_growth`: the relative
growth of the peak resident set from the shortest to the longest video (0.1 means 10 % more). On a
GPU, `device_growth` is the same for its memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import MIB, facts
from networks import checkpoint, write_video

from av2tsam_cli.inference.device import choose_device
from av2tsam_cli.model.config import PRESETS

SIZE = (320, 180)
RATE = 10
COMMAND = """
import sys
from av2tsam_cli.__main__ import main
from av2tsam_cli.process import tune_process
tune_process()
code = main(sys.argv[1:])
import torch
print(torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0)
sys.exit(code)
"""


def main() -> None:
    """Measure every length and print the growth on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", default="1,10", help="lengths, shortest first")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="nano",
        help="network; all but nano have random weights",
    )
    parser.add_argument("--model", help="name or checkpoint of a model, instead of --preset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, help="folder in which to keep random weights")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder, checkpoint(args.preset, args.weights) as file:
        for minutes in map(float, args.minutes.split(",")):
            video = Path(folder) / f"{minutes:g}min.mp4"
            write_video(video, round(minutes * 60), size=SIZE, rate=RATE)
            results.append(measure(video, args.model or str(file), args.device))
            print(json.dumps({"minutes": minutes, **results[-1]}), flush=True)
            video.unlink()
    growth = {
        name.replace("peak_", "").replace("_mib", "_growth"): growth_of([r[name] for r in results])
        for name in results[0]
        if name.startswith("peak_")
    }
    peaks = {"peak_rss_mib": [result["peak_rss_mib"] for result in results]}
    settings = {"network": args.model or args.preset}
    print(json.dumps(growth | peaks | settings | facts(choose_device(args.device))))


def growth_of(peaks: list[float]) -> float:
    """Return the relative growth from the first value to the last."""
    return round(peaks[-1] / peaks[0] - 1, 4)


def measure(video: Path, model: str, device: str) -> dict[str, float]:
    """Run the command and return its memory peaks in MiB and its wall time in seconds."""
    out = video.with_name(f"{video.stem}-overlay.mp4")
    arguments = ["segment", str(video), "--out", str(out), "--model", model, "--device", device]
    command = [sys.executable, "-c", COMMAND, *arguments, "--quiet"]
    start_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"segment failed with status {process.returncode}")
    peaks = {"peak_rss_mib": round(usage.ru_maxrss * 1024 / MIB, 1)}
    if device_bytes := int(output.split()[-1]):
        peaks["peak_device_mib"] = round(device_bytes / MIB, 1)
    return peaks | {"wall_s": round(time.perf_counter() - start_s, 2)}


if __name__ == "__main__":
    main()
