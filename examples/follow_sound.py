"""Crop a video to an upright one that follows the sound source: follow_sound.py [VIDEO [OUT]]."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from math import exp, inf
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

import av2tsam

SAMPLE = Path(__file__).parents[1] / "sample_media" / "duet.mp4"
SHAPE = Fraction(9, 16)
"""Width of the crop by its height."""
PAN_S = 0.4
"""Seconds in which the crop gets to 63 % of the way to the sound source."""
TICK = Fraction(1, 90_000)
"""Seconds; the unit of times in the output."""


def crops(video: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the time of each frame in seconds, and its crop: uint8, (H, W, 3), RGB."""
    middle = before_s = shot = None
    for item in av2tsam.iter_masks(video, model=av2tsam.load_model()):
        frame = item.frame
        height, width = item.mask.shape
        target = item.mask.nonzero()[1].mean() if item.mask.any() else middle
        if frame.shot != shot:  # the crop pans within a shot, and jumps at a cut
            shot, middle = frame.shot, width / 2 if target is None else target
        elif item.mask.any():
            middle += (target - middle) * (1 - exp((before_s - frame.time_s) / PAN_S))
        before_s = frame.time_s
        crop_width = min(width, round(height * SHAPE)) // 2 * 2
        left = round(min(max(middle - crop_width / 2, 0), width - crop_width))
        yield frame.time_s, frame.rgb[: height // 2 * 2, left : left + crop_width]


def write(out: Path, frames: Iterator[tuple[float, np.ndarray]], source: Path) -> None:
    """Write frames as H.264, with the sound of a source."""
    with av.open(source) as original, av.open(out, "w") as container:
        rate = original.streams.video[0].average_rate or 25
        video = container.add_stream("libx264", rate=rate, time_base=TICK)
        video.pix_fmt, video.colorspace = "yuv420p", Colorspace.ITU709
        sound = original.streams.best("audio")
        track = sound and container.add_stream_from_template(sound)
        packets = original.demux(sound) if sound else iter(())

        def copy_sound(stop_s: float) -> None:
            for packet in packets:
                if packet.dts is not None:
                    packet.stream = track
                    container.mux(packet)
                    if packet.dts * packet.time_base > stop_s:
                        return

        for time_s, pixels in frames:
            if not video.codec_context.is_open:
                video.height, video.width = pixels.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))
            picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            picture.pts, picture.time_base = round(time_s / TICK), TICK
            container.mux(video.encode(picture))
            copy_sound(time_s)
        container.mux(video.encode())
        copy_sound(inf)


if __name__ == "__main__":
    video = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    write(Path(sys.argv[2] if len(sys.argv) > 2 else "upright.mp4"), crops(video), video)
