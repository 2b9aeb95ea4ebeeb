"""Peak memory of `av2tsam segment` against the length of the video.

    python benchmarks/memory.py --minutes 1,10

Makes scenes of each length (320 x 180, 10 frames/s, with sound), runs the command on each in a
process of its own, and prints one JSON object per length and a last one with `rss_growth`: how much
larger the peak resident set of the longest is than that of the shortest, as a fraction.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np

from av2tsam_cli.synth.clips import SMALL_H264, write_clip
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack

SIZE = (320, 180)
RATE = 10
RATE_HZ = 16_000
SCENES = 12


def main() -> None:
    """Measure every length and print the growth last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", default="1,10", help="lengths, shortest first")
    parser.add_argument("--model", default="nano")
    args = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in map(float, args.minutes.split(",")):
            video = Path(folder) / f"{minutes:g}min.mp4"
            write_video(video, round(minutes * 60))
            result = measure(video, args.model)
            peaks.append(result["peak_rss_mib"])
            print(json.dumps({"minutes": minutes, **result}), flush=True)
    growth = peaks[-1] / peaks[0] - 1
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"rss_growth": round(growth, 4), "peak_rss_mib": peaks, **machine}))


def write_video(path: Path, seconds: int) -> None:
    """Write scenes one after another, drawn as they are encoded."""
    scenes = [sample_scene(scene_rng("test", 5, index), subset="ms3") for index in range(SCENES)]
    renderers = [Renderer(scene, *SIZE) for scene in scenes]
    sounds = [soundtrack(scene, RATE_HZ) for scene in scenes]
    order = [index % SCENES for index in range(-(-seconds // scenes[0].duration_s))]
    times = [n / RATE for n in range(scenes[0].duration_s * RATE)]
    frames = chain.from_iterable((renderers[k].frame(t)[0] for t in times) for k in order)
    sound = np.concatenate([sounds[k] for k in order])
    write_clip(path, frames, sound, size=SIZE, rate=RATE, rate_hz=RATE_HZ, h264=SMALL_H264)


def measure(video: Path, model: str) -> dict[str, float]:
    """Run the command; its peak resident set in MiB and its wall time in seconds."""
    out = video.with_name(f"{video.stem}-overlay.mp4")
    words = ["segment", str(video), "--out", str(out), "--model", model, "--quiet"]
    began_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "av2tsam_cli", *words])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"segment failed with status {os.waitstatus_to_exitcode(status)}")
    return {
        "peak_rss_mib": round(usage.ru_maxrss / 1024, 1),
        "wall_s": round(time.perf_counter() - began_s, 2),
    }


if __name__ == "__main__":
    main()
