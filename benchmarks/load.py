"""`av2tsam segment` under load: many videos, damaged ones, a long one, and several runs at once.

    python benchmarks/load.py
    python benchmarks/load.py --cases many,batch --videos 12 --inputs 20

    many      segments short videos in one process, and measures it after each
    batch     one command with many inputs, of which one in twenty is damaged
    long      one command with one long video of 64 x 48 pixels, measured twice a second
    together  runs at once in one folder: one output each, then all the same output

All use nano on the CPU. Prints one JSON line per case, and all results on the last line. Memory,
open files and threads are flat if they grow by at most FLAT over the last half, along the straight
line that fits them best. Ends with exit code 1 if anything is not as it should be; `wrong` says
what.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from machine import MIB, facts

from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.segment_options import Format

SIZE, RATE_HZ = (64, 48), 16_000
MICROSECONDS = 1_000_000
"""FFmpeg's unit of the length of a file, per second."""
FLAT = {"rss_mib": 16.0, "files": 0.5, "threads": 0.5}
"""Largest growth over the last half that counts as none."""
COMMAND = (sys.executable, "-m", "av2tsam_cli", "segment")
NANO = ("--model", "nano", "--device", "cpu")
Result = dict[str, Any]


def main() -> None:
    """Run the cases and print their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help="which to run")
    parser.add_argument("--videos", type=int, default=200, help="of `many`")
    parser.add_argument("--inputs", type=int, default=1000, help="of `batch`")
    parser.add_argument("--hours", type=float, default=3.0, help="length of the `long` video")
    parser.add_argument("--rate", type=int, default=2, help="its frames per second")
    parser.add_argument("--runs", type=int, default=8, help="of `together`")
    args = parser.parse_args()
    results: dict[str, Result] = {}
    for name in args.cases.split(","):
        with TemporaryDirectory() as folder:
            began_s = time.perf_counter()
            results[name] = CASES[name](Path(folder), args)
            results[name]["wall_s"] = round(time.perf_counter() - began_s, 1)
        print(json.dumps({"case": name} | results[name]), flush=True)
    print(json.dumps(results | facts()))
    if any(result["wrong"] for result in results.values()):
        sys.exit(1)


def many(folder: Path, args: argparse.Namespace) -> Result:
    """Segment short videos in this process."""
    from av2tsam_cli.inference.loading import load_model
    from av2tsam_cli.pipeline import segment_video

    kinds = short_videos(folder)
    model = load_model("nano", device="cpu")
    usage = []
    for index in range(args.videos):
        target = folder / (f"{index}.mp4" if index % 2 else f"{index}")
        kind: Format = "video" if index % 2 else "masks"
        segment_video(kinds[index % len(kinds)], target, model=model, format=kind)
        usage.append(usage_of(os.getpid()))
        (shutil.rmtree if target.is_dir() else Path.unlink)(target)
    return growth(usage)


def batch(folder: Path, args: argparse.Namespace) -> Result:
    """Run one command with many inputs, some of which are damaged."""
    kinds, inputs, damaged = short_videos(folder), [], set()
    for index in range(args.inputs):
        inputs.append(folder / "in" / f"{index:04d}.mp4")
        inputs[-1].parent.mkdir(exist_ok=True)
        shutil.copy(kinds[index % len(kinds)], inputs[-1])
        if index % 20 == 7:
            damage(inputs[-1], index // 20)
            damaged.add(str(inputs[-1]))
    out = folder / "out"
    out.mkdir()
    arguments = (*map(str, inputs), "-o", str(out), "-f", "video", "--json", *NANO)
    run, usage = watched(arguments, folder)
    records = [json.loads(line) for line in run.stdout.splitlines()]
    failed = {record["input"] for record in records if record.get("error")}
    errors = [line for line in run.stderr.splitlines() if line.startswith("av2tsam: error: ")]
    wrong = growth(usage)["wrong"]
    expected = {str(out / Path(path).name) for path in map(str, inputs) if path not in damaged}
    found = {str(path) for path in out.iterdir()}
    wrong += differences("exit code", run.returncode, 3)
    wrong += differences("records", len(records), len(inputs))
    wrong += differences("failed inputs", failed, damaged)
    wrong += differences("error lines", len(errors), len(damaged))
    wrong += differences("outputs", found, expected)
    wrong += [f"{path.name}: unreadable" for path in sorted(out.iterdir()) if not frames_in(path)]
    return growth(usage) | {
        "inputs": len(inputs),
        "damaged": len(damaged),
        "outputs": len(found),
        "error_lines": len(errors),
        "exit_code": run.returncode,
        "wrong": wrong,
    }


def long(folder: Path, args: argparse.Namespace) -> Result:
    """Segment one long video."""
    video, seconds = folder / "long.mp4", round(args.hours * 3600)
    repeat(short_video(folder / "minute.mp4", 0, seconds=60, rate=args.rate), video, seconds // 60)
    out = folder / "o.mp4"
    run, usage = watched((str(video), "-o", str(out), "--json", *NANO), folder)
    grown = growth(usage)
    wrong = grown["wrong"] + differences("exit code", run.returncode, 0)
    wrong += run.stderr.splitlines()[-3:] if run.returncode else []
    frames = seconds // 60 * 60 * args.rate
    if not run.returncode:
        record = json.loads(run.stdout)
        grown["run_s"] = round(record["wall_s"], 1)
        wrong += differences("frames", record["frames"], frames)
        wrong += differences("frames in the output", frames_in(out), frames)
    return grown | {"hours": args.hours, "frames": frames, "wrong": wrong}


def together(folder: Path, args: argparse.Namespace) -> Result:
    """Run several commands at once in one folder."""
    video = short_video(folder / "in.mp4", 0, seconds=2, rate=10)
    others: list[tuple[str, ...]] = [
        (str(video), "-o", str(folder / f"{k}.mp4"), *NANO) for k in range(args.runs)
    ]
    same = (str(video), "-o", str(folder / "same.mp4"), *NANO)
    shared = (str(video), "-o", str(folder), "-f", "masks", *NANO)
    rounds: dict[str, list[tuple[str, ...]]] = {
        "different": others,
        "same": [same] * args.runs,
        "replaced": [(*same, "--overwrite")] * args.runs,
        "folder": [shared] * args.runs,
        "replaced folder": [(*shared, "--overwrite")] * args.runs,
    }
    codes: dict[str, list[int]] = {}
    wrong: list[str] = []
    for name, commands in rounds.items():
        runs = [start(arguments) for arguments in commands]
        errors = [run.communicate()[1] for run in runs]
        codes[name] = sorted(run.returncode for run in runs)
        # Without --overwrite, the first output stays; the others fail before or after the work.
        right = codes[name].count(0) == 1 and set(codes[name]) <= {0, 1, 2}
        if name in {"different", "replaced", "replaced folder"}:
            right = not any(codes[name])
        if not right:
            wrong.append(f"{name}: exit codes {codes[name]}: {errors}")
    for path in sorted(folder.glob("*.mp4")):
        wrong += differences(path.name, frames_in(path), 20)
    wrong += differences("masks", len(list((folder / "in").iterdir())), 20)
    wrong += differences("left", [path.name for path in folder.glob(".*")], [])
    return {"runs": args.runs, "exit_codes": codes, "wrong": wrong}


CASES: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "many": many,
    "batch": batch,
    "long": long,
    "together": together,
}


@dataclass(frozen=True)
class Usage:
    """What a process and its children use."""

    rss_mib: float
    """Resident memory in MiB."""
    files: int
    """Open files."""
    threads: int
    """Threads."""


def usage_of(process: int) -> Usage:
    """Measure a process and its children.

    Raises:
        OSError: One of them ended.
    """
    proc = Path("/proc") / str(process)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    files, threads = len(list((proc / "fd").iterdir())), int(status["Threads"])
    children = (proc / "task" / str(process) / "children").read_text().split()
    below = [usage_of(int(child)) for child in children]
    return Usage(
        int(status["VmRSS"].split()[0]) * 1024 / MIB + sum(each.rss_mib for each in below),
        files + sum(each.files for each in below),
        threads + sum(each.threads for each in below),
    )


def growth(usage: Sequence[Usage]) -> Result:
    """Return what was used at the end, and by how much that grew over the last half."""
    half = usage[len(usage) // 2 :]
    result: Result = {"measured": len(usage), "wrong": []}
    wrong: list[str] = []
    for name, most in FLAT.items():
        values = [getattr(each, name) for each in half]
        times = np.arange(len(values)) / max(1, len(values) - 1)
        grown = float(np.polyfit(times, values, 1)[0]) if len(values) > 1 else 0.0
        result[name] = {
            "median": round(float(np.median(values)), 1),
            "most": round(max(getattr(each, name) for each in usage), 1),
            "growth": round(grown, 2),
        }
        if grown > most:
            wrong.append(f"{name}: grew by {grown:.2f} over the last half")
    return result | {"wrong": wrong}


def watched(
    arguments: Sequence[str], folder: Path
) -> tuple["subprocess.CompletedProcess[str]", list[Usage]]:
    """Run the command and measure it twice a second."""
    usage: list[Usage] = []
    outputs = folder / "stdout.txt", folder / "stderr.txt"
    with outputs[0].open("w") as stdout, outputs[1].open("w") as stderr:
        run = subprocess.Popen((*COMMAND, *arguments), stdout=stdout, stderr=stderr)
        while run.poll() is None:
            time.sleep(0.5)
            try:
                usage.append(usage_of(run.pid))
            except (OSError, KeyError):  # it, or a child of it, ended
                continue
    stdout_text, stderr_text = (path.read_text() for path in outputs)
    return subprocess.CompletedProcess(run.args, run.returncode, stdout_text, stderr_text), usage


def start(arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """Start the command."""
    return subprocess.Popen((*COMMAND, *arguments), stderr=subprocess.PIPE, text=True)


def differences(what: str, found: object, expected: object) -> list[str]:
    """Return a line if two values differ."""
    return [] if found == expected else [f"{what}: {found} instead of {expected}"]


def frames_in(video: Path) -> int:
    """Return the number of frames that can be decoded; 0 if the file cannot be opened."""
    try:
        with av.open(str(video)) as container:
            return sum(1 for _ in container.decode(video=0))
    except av.FFmpegError:
        return 0


def short_videos(folder: Path) -> list[Path]:
    """Write a few short videos that differ in their size, length, rate and sound."""
    return [
        short_video(folder / f"kind{k}.mp4", k, seconds=0.4 + k / 5, rate=5 + k) for k in range(5)
    ]


def short_video(path: Path, kind: int, *, seconds: float, rate: int) -> Path:
    """Write a video of a moving square, with a tone."""
    width, height = SIZE[0] + 16 * kind, SIZE[1]
    frames = []
    for index in range(round(seconds * rate)):
        rgb = np.full((height, width, 3), 40 * kind, np.uint8)
        left = index % (width - 16)
        rgb[8:24, left : left + 16] = (255, 200, 60)
        frames.append(rgb)
    times = np.arange(round(seconds * RATE_HZ), dtype=np.float32) / RATE_HZ
    tone = (0.3 * np.sin(2 * np.pi * (300 + 200 * kind) * times)).astype(np.float32)
    h264 = {"preset": "ultrafast", "crf": "30", "threads": "1"}
    size = (width, height)
    write_clip(path, frames, tone, size=size, rate=rate, rate_hz=RATE_HZ, h264=h264)
    return path


def repeat(video: Path, target: Path, times: int) -> None:
    """Join a video to itself, packet by packet."""
    with av.open(str(video)) as source, av.open(str(target), "w") as output:
        tracks = {s.index: output.add_stream_from_template(s) for s in source.streams}
        length = Fraction(source.duration or 0, MICROSECONDS)
        for index in range(times):
            source.seek(0)
            for packet in source.demux():
                if packet.pts is None or packet.dts is None:
                    continue
                shift = round(index * length / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = tracks[packet.stream_index]
                output.mux(packet)


def damage(video: Path, kind: int) -> None:
    """Damage a file so that nothing of it can be read."""
    data = video.read_bytes()
    kinds = (b"", data[: len(data) // 2], data[:40], b"no video\n" * 50, bytes(len(data)))
    video.write_bytes(kinds[kind % len(kinds)])


if __name__ == "__main__":
    main()
