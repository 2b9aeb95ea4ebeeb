"""Measure the speed-up from one Ray worker to two on this machine, and the overhead of Ray.

    python benchmarks/workers.py
    python benchmarks/workers.py --cases clips --clips 40

    clips   the same clips on one worker and on two, each with one CPU core
    long    one long video without Ray, on one worker with all cores, and in parts on two workers

All cases use nano on the CPU. `speedup` is measured from the first result of each worker to the
last, so without starting Ray and loading the model; `speedup_whole` is for the whole command.
`overhead` is the share by which the command takes longer with Ray. Prints one JSON line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from machine import facts

SAMPLE = Path(__file__).parents[1] / "sample_media" / "duet.mp4"
COMMAND = (sys.executable, "-m", "av2tsam_cli", "segment")
OPTIONS = ("--model", "nano", "--device", "cpu", "--json", "--quiet")


def main() -> None:
    """Run the cases and print their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="clips,long", help="which to run")
    parser.add_argument("--clips", type=int, default=40, help="number of clips")
    parser.add_argument("--end", type=float, default=4.0, help="seconds of each that are used")
    parser.add_argument("--repeats", type=int, default=75, help="of the sample in the long video")
    parser.add_argument("--split", type=int, default=80, help="seconds of its parts")
    args = parser.parse_args()
    results: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        work = Path(folder)
        if "clips" in args.cases:
            results["clips"] = measure_clips(work, args.clips, args.end)
        if "long" in args.cases:
            results["long"] = measure_long(work, args.repeats, args.split)
    print(json.dumps({**facts(), **results}))


def measure_clips(work: Path, count: int, end_s: float) -> dict[str, float]:
    """Segment clips on one worker, then on two."""
    clips = work / "clips"
    clips.mkdir()
    for number in range(count):
        shutil.copyfile(SAMPLE, clips / f"{number:03}.mp4")
    seconds: dict[int, tuple[float, float]] = {}
    for workers in (1, 2):
        words = [str(clips), "-o", str(work / f"out{workers}"), "-f", "masks", "--end", str(end_s)]
        ray = ["--ray", "local", "--workers", str(workers), "--cpus-per-worker", "1"]
        times, whole_s = run(*words, *ray)
        # The measured time begins when each worker has finished its first clip.
        rate = (len(times) - workers) / (times[-1] - times[workers - 1])
        seconds[workers] = 1 / rate, whole_s
    (one_s, one_whole_s), (two_s, two_whole_s) = seconds[1], seconds[2]
    return {
        "clips": count,
        "one_s_per_clip": round(one_s, 3),
        "two_s_per_clip": round(two_s, 3),
        "speedup": round(one_s / two_s, 3),
        "one_whole_s": round(one_whole_s, 1),
        "two_whole_s": round(two_whole_s, 1),
        "speedup_whole": round(one_whole_s / two_whole_s, 3),
    }


def measure_long(work: Path, repeats: int, split_s: int) -> dict[str, float]:
    """Segment a long video without Ray, with Ray, and in parts."""
    video = work / "long.mp4"
    write_repeated(video, repeats)
    ray = ["--ray", "local"]
    variants = {
        "plain": [],
        "ray": [*ray, "--workers", "1"],
        "parts": [*ray, "--workers", "2", "--cpus-per-worker", "1", "--split", str(split_s)],
    }
    seconds = {
        name: run(str(video), "-o", str(work / f"{name}.mp4"), *words)[1]
        for name, words in variants.items()
    }
    return {
        "seconds_of_video": repeats * 8,
        **{f"{name}_s": round(value, 1) for name, value in seconds.items()},
        "overhead": round(seconds["ray"] / seconds["plain"] - 1, 3),
        "parts_speedup": round(seconds["plain"] / seconds["parts"], 3),
    }


def run(*words: str) -> tuple[list[float], float]:
    """Run a command; return the times of its results and of its end, in seconds."""
    began_s = time.monotonic()
    with subprocess.Popen([*COMMAND, *words, *OPTIONS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        times = [time.monotonic() - began_s for _ in process.stdout]
    assert process.returncode == 0, words
    return times, time.monotonic() - began_s


def write_repeated(target: Path, repeats: int) -> None:
    """Write a video that repeats the sample, without encoding it again."""
    with av.open(str(SAMPLE)) as source, av.open(str(target), "w") as output:
        streams = {
            each.index: output.add_stream_from_template(each)
            for each in (*source.streams.video, *source.streams.audio)
        }
        length_s = Fraction(8)
        for number in range(repeats):
            source.seek(0)
            for packet in source.demux(*source.streams.video, *source.streams.audio):
                if packet.pts is None or packet.dts is None or packet.pts * packet.time_base < 0:
                    continue
                if packet.pts * packet.time_base >= length_s:
                    continue
                shift = round(number * length_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                output.mux(packet)


if __name__ == "__main__":
    main()
