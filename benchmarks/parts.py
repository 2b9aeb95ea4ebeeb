"""Compare a video segmented in parts with the same video in one piece, and time each step.

    python benchmarks/parts.py film.mp4 --seconds 60

The parts are segmented one after the other in this process. Masks, tables and events are compared
byte by byte; for overlay videos, the times of all packets and the sound data. Pictures may differ
by the encoding loss: `picture_levels` is their mean difference in levels from 0 to 255.
"""

import argparse
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from machine import facts

from av2tsam_cli import process
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.parts import analyse_sound, cut, join_parts, segment_part
from av2tsam_cli.pipeline import load_for, segment_planned
from av2tsam_cli.plan import plan_video
from av2tsam_cli.segment_options import Format, SegmentOptions

OUTPUTS: dict[Format, str] = {"masks": "masks", "video": "overlay.mp4"}
"""Formats and the names of their outputs."""
VIDEO = Path(__file__).parents[1] / "sample_media" / "duet.mp4"


def main() -> None:
    """Compare and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path, nargs="?", default=VIDEO)
    parser.add_argument("--seconds", type=int, default=4, help="length of the parts")
    parser.add_argument("--end", type=float, help="seconds of the video to use")
    parser.add_argument("--model", default="nano")
    args = parser.parse_args()
    process.tune_process()
    model = load_model(args.model)
    result: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for kind, name in OUTPUTS.items():
            outs = [Path(folder) / kind / way / name for way in ("one", "parts")]
            result[kind] = run(args, model, kind, outs)
            result[kind] |= (compare_videos if kind == "video" else compare_folders)(*outs)
    print(json.dumps(facts() | {"video": args.video.name, "seconds": args.seconds} | result))


def run(
    args: argparse.Namespace, model: LoadedModel, kind: Format, outs: list[Path]
) -> dict[str, Any]:
    """Segment a video in one piece and in parts; return the seconds of each step."""
    one, parted = (
        plan_video(
            args.video,
            out,
            SegmentOptions(
                format=kind,
                end=args.end,
                frames_csv=out.parent / "frames.csv",
                events=out.parent / "events.json",
            ),
        )
        for out in outs
    )
    segmenter = load_for(one.options, model, device="auto", precision="auto")
    clock = [time.perf_counter()]
    frames = segment_planned(one, segmenter).frames
    clock.append(time.perf_counter())
    sound = analyse_sound(parted, segmenter)
    clock.append(time.perf_counter())
    parts = cut(parted, args.seconds)
    written = [
        segment_part(parted, segmenter, sound, part, outs[0].parents[1] / f"{part.number}")
        for part in parts
    ]
    clock.append(time.perf_counter())
    join_parts(parted, segmenter, sound, written)
    clock.append(time.perf_counter())
    one_s, hear_s, parts_s, join_s = np.diff(clock).tolist()
    return {
        "frames": frames,
        "parts": len(parts),
        "one_s": round(one_s, 2),
        "hear_s": round(hear_s, 2),
        "parts_s": round(parts_s, 2),
        "join_s": round(join_s, 2),
        "heard_bytes": len(pickle.dumps(sound)),
    }


def compare_folders(one: Path, parts: Path) -> dict[str, Any]:
    """Return the number of files, the names of those that differ, and how many are missing."""
    files = [path for path in sorted(one.parent.rglob("*")) if path.is_file()]
    others = [parts.parent / path.relative_to(one.parent) for path in files]
    differing = [
        path.name
        for path, other in zip(files, others, strict=True)
        if not other.exists() or path.read_bytes() != other.read_bytes()
    ]
    missing = len([path for path in parts.parent.rglob("*") if path.is_file()]) - len(files)
    return {"files": len(files), "differing": differing, "missing": missing}


def compare_videos(one: Path, parts: Path) -> dict[str, Any]:
    """Return whether times and sound of two videos are equal, and how much pictures differ."""
    levels = [
        float(np.abs(picture.astype(np.int16) - other).mean())
        for picture, other in zip(pictures(one), pictures(parts), strict=True)
    ]
    return {
        "times_equal": times(one) == times(parts),
        "sound_equal": sound(one) == sound(parts),
        "picture_levels": round(float(np.mean(levels)), 3),
        "bytes": [one.stat().st_size, parts.stat().st_size],
    }


def times(path: Path) -> dict[int, list[list[int]]]:
    """Return the presentation and decoding times of the packets of each stream, sorted."""
    found: dict[int, list[list[int]]] = {}
    with av.open(str(path)) as video:
        for packet in video.demux():
            if packet.size:
                pts, dts = found.setdefault(packet.stream_index, [[], []])
                pts.append(packet.pts or 0)
                dts.append(packet.dts or 0)
    return {stream: [sorted(pts), dts] for stream, (pts, dts) in found.items()}


def sound(path: Path) -> list[bytes]:
    """Return the data of the audio packets."""
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(audio=0) if packet.size]


def pictures(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the brightness of the pictures of a video."""
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            yield frame.to_ndarray(format="gray").astype(np.uint8)


if __name__ == "__main__":
    main()
