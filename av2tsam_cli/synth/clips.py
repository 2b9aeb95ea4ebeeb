"""Write scenes as video files with sound, and the samples with their exact masks."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import UInt8Array

SMALL_H264 = {"preset": "ultrafast", "crf": "26", "threads": "1"}
"""Fast. One thread, so that the bytes do not depend on the machine."""
SAMPLE_H264 = {"preset": "slow", "crf": "25", "threads": "1"}
SAMPLE_RATE_HZ = 48_000
_QUICK_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip


def sounding_mask(scene: Scene, ids: UInt8Array, time_s: float) -> npt.NDArray[np.bool_]:
    """Return the mask (H, W) of the sounding objects in the frame at a time in seconds."""
    labels = np.zeros(256, bool)
    labels[[position + 1 for position in scene.sounding(time_s)]] = True
    return labels[ids]


def encode_png(pixels: UInt8Array, *options: int) -> bytes:
    """Encode RGB (H, W, 3) or one channel (H, W) as PNG, fast rather than small."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    flags = options or _QUICK_PNG
    _, data = cv2.imencode(".png", np.ascontiguousarray(ordered), flags)
    return bytes(data.tobytes())


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
        mask = sounding_mask(scene, ids, index / rate).astype(np.uint8) * 255
        data = encode_png(mask, cv2.IMWRITE_PNG_COMPRESSION, 9)
        (masks_dir / f"{index:06d}.png").write_bytes(data)
        pixels.append(rgb)
    sound = soundtrack(scene, SAMPLE_RATE_HZ)
    write_clip(path, pixels, sound, size=size, rate=rate, rate_hz=SAMPLE_RATE_HZ, h264=SAMPLE_H264)
