"""Write scenes as video files with sound, and the samples with their exact masks."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import Float32Array, UInt8Array

SMALL_H264 = {"preset": "ultrafast", "crf": "26", "threads": "1"}
"""Fast. One thread, so that the bytes do not depend on the machine."""
SAMPLE_H264 = {"preset": "slow", "crf": "25", "threads": "1"}
SAMPLE_RATE_HZ = 48_000
_AAC = {"aac_coder": "fast"}
"""Takes a third of the time of the encoder's default."""
_AAC_BITS_PER_S = 64_000
_AAC_FRAME = 1024
_QUICK_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip


def sounding_mask(scene: Scene, ids: UInt8Array, second: int) -> npt.NDArray[np.bool_]:
    """Return the mask (H, W) of the sounding objects in a frame of [second, second + 1)."""
    labels = np.zeros(256, bool)
    labels[[position + 1 for position in scene.sounding(second)]] = True
    return labels[ids]


def encode_png(pixels: UInt8Array, *options: int) -> bytes:
    """Encode RGB (H, W, 3) or one channel (H, W) as PNG, fast rather than small."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    flags = options or _QUICK_PNG
    _, data = cv2.imencode(".png", np.ascontiguousarray(ordered), flags)
    return bytes(data.tobytes())


def write_clip(
    path: Path,
    frames: Iterable[UInt8Array],
    sound: Float32Array,
    *,
    size: tuple[int, int],
    rate: int,
    rate_hz: int,
    h264: dict[str, str],
) -> None:
    """Encode frames and mono sound as an MP4 (H.264, BT.709, and AAC).

    Args:
        path: The file.
        frames: RGB, uint8, (H, W, 3).
        sound: Samples, float32, (n,).
        size: Width and height, both even.
        rate: Frames per second.
        rate_hz: Samples per second.
        h264: Options of libx264.
    """
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = _add_video(container, size, rate, h264)
        audio = container.add_stream("aac", rate=rate_hz, layout="mono", options=_AAC)
        audio.codec_context.bit_rate = _AAC_BITS_PER_S
        chunks = _sound_frames(sound, rate_hz)
        for picture in _pictures(frames, rate):
            container.mux(video.encode(picture))
            for chunk in islice(chunks, ceil(rate_hz / rate / _AAC_FRAME)):
                container.mux(audio.encode(chunk))
        for chunk in chunks:
            container.mux(audio.encode(chunk))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def write_sample(
    scene: Scene, path: Path, masks_dir: Path, size: tuple[int, int] = (640, 360), rate: int = 25
) -> None:
    """Write a scene as an MP4 with sound at 48 kHz, and the exact mask of every frame.

    Args:
        scene: The scene.
        path: The MP4.
        masks_dir: Folder of the masks, 000000.png and so on: 8-bit, 255 on sounding objects.
        size: Width and height in pixels, both even.
        rate: Frames per second.
    """
    masks_dir.mkdir(parents=True, exist_ok=True)
    renderer = Renderer(scene, *size)
    pixels = []
    for index in range(scene.duration_s * rate):
        rgb, ids = renderer.frame(index / rate)
        mask = sounding_mask(scene, ids, index // rate).astype(np.uint8) * 255
        data = encode_png(mask, cv2.IMWRITE_PNG_COMPRESSION, 9)
        (masks_dir / f"{index:06d}.png").write_bytes(data)
        pixels.append(rgb)
    sound = soundtrack(scene, SAMPLE_RATE_HZ)
    write_clip(path, pixels, sound, size=size, rate=rate, rate_hz=SAMPLE_RATE_HZ, h264=SAMPLE_H264)


def _add_video(
    container: OutputContainer, size: tuple[int, int], rate: int, h264: dict[str, str]
) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate, options=h264)
    context = stream.codec_context
    (context.width, context.height), context.pix_fmt = size, "yuv420p"
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _pictures(frames: Iterable[UInt8Array], rate: int) -> Iterator[VideoFrame]:
    reformatter = VideoReformatter()
    for index, rgb in enumerate(frames):
        picture = reformatter.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), "rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,  # on small frames more threads only wait for each other
        )
        picture.pts, picture.time_base = index, Fraction(1, rate)
        yield picture


def _sound_frames(sound: Float32Array, rate_hz: int) -> Iterator[AudioFrame]:
    for start in range(0, len(sound), _AAC_FRAME):
        frame = AudioFrame.from_ndarray(sound[None, start : start + _AAC_FRAME], "fltp", "mono")
        frame.rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        yield frame
