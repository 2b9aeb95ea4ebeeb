"""Peak memory of `av2tsam segment`: against the length of the video, or part by part.

    python benchmarks/memory.py --minutes 1,10
    python benchmarks/memory.py --parts 640x360,3840x2160

With `--minutes`, generates a video of each length (320 x 180, 10 frames/s, with sound) and runs the
command on each in a new process. Prints one JSON line per length. The last line has `rss_growth`:
the relative growth of the peak resident set from the shortest to the longest video (0.1 means 10 %
more). On a GPU, `device_growth` is the same for its memory.

With `--parts`, generates two seconds of video of each size and runs more and more of the command,
each time in a new process: only the imports, also the weights, and so on (see PARTS). Prints one
JSON line per size with the peak of each in MiB, and repeats them on the last line. The number of
frames held at once is counted in another run of the whole.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from argparse import SUPPRESS
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from threading import RLock

import numpy as np
from av.video.frame import VideoFrame
from machine import MIB, facts, peak_rss_bytes
from networks import checkpoint, write_video

from av2tsam_cli.inference.device import choose_device
from av2tsam_cli.media import frames
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.pipeline import load_for, segment_planned
from av2tsam_cli.plan import plan_video
from av2tsam_cli.process import tune_process
from av2tsam_cli.segment_options import Format, SegmentOptions
from av2tsam_cli.stages import are_large, codec_threads, compute, read_scheduled
from av2tsam_cli.values import UInt8Array

SIZE = (320, 180)
RATE = 10
PARTS = ("imports", "weights", "decoder", "schedule", "network", "masks", "video", "command")
"""What is run, cumulatively: the imports; loading the weights; decoding to RGB; finding shots and
repeats and preparing the sound; the network; masks as PNGs; the overlay video, in place of PNGs;
and the command itself, with an interpreter of its own."""
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
    parser.add_argument("--parts", metavar="SIZES", help="explain the memory at these sizes")
    parser.add_argument("--seconds", type=int, default=2, help="length of the videos of --parts")
    parser.add_argument("--run-part", nargs=3, metavar=("PART", "VIDEO", "MODEL"), help=SUPPRESS)
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
    if args.run_part:
        part, video, model = args.run_part
        print(json.dumps(run_part(part, Path(video), model, args.device)))
        return
    if args.parts:
        explain(args)
        return
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


def explain(args: argparse.Namespace) -> None:
    """Run each part at each size in a process of its own."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, checkpoint(args.preset, args.weights) as file:
        for size in args.parts.split(","):
            width, height = map(int, size.split("x"))
            video = Path(folder) / f"{size}.mp4"
            write_video(video, args.seconds, size=(width, height), rate=25)
            model = args.model or str(file)
            peaks = {p: in_process(p, video, model, args.device)["peak_mib"] for p in PARTS[:-1]}
            whole = measure(video, model, args.device)
            counted = in_process("frames", video, model, args.device)
            found[size] = peaks | {"command": whole["peak_rss_mib"]} | counted
            print(json.dumps({"size": size} | found[size]), flush=True)
    settings = {"network": args.model or args.preset, "seconds": args.seconds}
    print(json.dumps({"sizes": found} | settings | facts(choose_device(args.device))))


def in_process(part: str, video: Path, model: str, device: str) -> dict[str, float]:
    """Run a part in a new process and return what it prints."""
    command = [sys.executable, __file__, "--device", device, "--run-part", part, str(video), model]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_part(part: str, video: Path, model: str, device: str) -> dict[str, float]:
    """Run the command up to a part in this process; return the peak, or the frames held at once."""
    tune_process()  # as the command line does
    held = Held() if part == "frames" else None
    kind: Format = "masks" if part == "masks" else "video"
    if part != "imports":
        run_until(part, video, model, device, SegmentOptions(format=kind, overwrite=True))
    if held is not None:
        return {"frames_held": held.most, "frame_mib": round(held.bytes / MIB, 1)}
    return {"peak_mib": round(peak_rss_bytes() / MIB, 1)}


def run_until(part: str, video: Path, model: str, device: str, options: SegmentOptions) -> None:
    """Run everything up to a part."""
    out = video.parent / ("masks" if options.format == "masks" else f"{video.stem}-part.mp4")
    plan = plan_video(video, out, options)
    segmenter = load_for(options, model, device=device, precision="auto")
    if part == "decoder":
        read = read_frames(
            plan.info,
            stream=plan.video,
            zero_s=plan.zero_s,
            threads=codec_threads(plan, segmenter.model),
        )
        exhaust(read)
    elif part == "schedule":
        exhaust(read_scheduled(plan, segmenter))
    elif part == "network":
        scheduled = read_scheduled(plan, segmenter)
        exhaust(compute(scheduled, segmenter, options, large=are_large(plan)))
    elif part != "weights":
        segment_planned(plan, segmenter)


def exhaust(values: Iterable[object]) -> None:
    """Take all values and hold none."""
    deque(values, maxlen=0)


class Held:
    """Counts the decoded frames that are in memory at once."""

    def __init__(self) -> None:
        self.now = self.most = self.bytes = 0
        self.lock = RLock()  # a frame can be released while one is counted
        convert = frames._Converter.__call__

        def counted(converter: frames._Converter, frame: VideoFrame) -> UInt8Array:
            rgb = convert(converter, frame).view(Watched)
            with self.lock:
                self.now, self.bytes = self.now + 1, rgb.nbytes
                self.most = max(self.most, self.now)
            weakref.finalize(rgb, self.release)
            return rgb

        frames._Converter.__call__ = counted  # type: ignore[method-assign]

    def release(self) -> None:
        """Count one frame less."""
        with self.lock:
            self.now -= 1


class Watched(np.ndarray):  # type: ignore[type-arg]
    """Pixels to which a weak reference can point, as to no plain array."""


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
