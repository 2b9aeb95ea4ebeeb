"""Make the pictures in the documentation from the output of `av2tsam` on the sample videos.

Run from the repository: `python recipes/samples/pictures.py`. It writes docs/images/duet.webp (the
animation at the top of the README), docs/images/duet.jpg, names.jpg, styles.jpg and
tour-*.jpg.
"""

import tempfile
from pathlib import Path
from typing import Any, get_args

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from av2tsam import load_model, segment_video
from av2tsam_cli.segment_options import Style

SAMPLES = Path("sample_media")
IMAGES = Path("docs/images")
RATE = 25
"""Frames per second of every sample."""
ANIMATION_RATE = 12.5
"""Frames per second of the animation."""
WIDTH = 480
STRIP_HEIGHT = 56
"""Height in pixels of the waveform below the animation."""
LARGEST_BYTES = 1_000_000

STYLES = get_args(Style)

BACKGROUND = (24, 26, 32)
UNPLAYED = (92, 98, 112)
PLAYED = (255, 122, 92)

Picture = npt.NDArray[np.uint8]
"""Pixels, uint8, (H, W, 3), RGB."""


def main() -> None:
    """Write all pictures to docs/images/."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        overlays = {name: _overlays(name, work) for name in ("duet", "crowd", "offscreen")}
        masks = _masks("duet", work)
        dog = _overlays("duet", work / "text", text="the dog")
        named = _overlays("duet", work / "words", hear="words", names=True)
        styled = [_overlays("duet", work / style, style=style, end=2.0)[RATE] for style in STYLES]
    _animate(named, IMAGES / "duet.webp")
    _save(_grid([named[s * RATE] for s in (1, 3, 5, 7)]), IMAGES / "names.jpg")
    _save(_grid([overlays["duet"][s * RATE] for s in (1, 3, 5, 7)]), IMAGES / "duet.jpg")
    *single, side_by_side = styled
    halves = np.array_split(side_by_side, 2, axis=1)
    _save(_grid([*single, *halves]), IMAGES / "styles.jpg")
    pair = [overlays["duet"][5 * RATE], masks[5 * RATE]]
    _save(_grid(pair), IMAGES / "tour-masks.jpg")
    _save(_grid([dog[s * RATE] for s in (1, 3)]), IMAGES / "tour-text.jpg")
    _save(_grid([overlays["crowd"][s * RATE + 5] for s in (0, 2, 4, 5)]), IMAGES / "tour-crowd.jpg")
    silent = [overlays["offscreen"][s * RATE] for s in (1, 3)]
    _save(_grid(silent), IMAGES / "tour-offscreen.jpg")


def _overlays(name: str, folder: Path, **options: Any) -> list[Picture]:
    """Return every frame of a sample with the sound source (or the phrase) highlighted."""
    video = SAMPLES / f"{name}.mp4"
    segment_video(
        video, folder / "overlays", model=load_model("nano"), format="overlays", **options
    )
    return _read(folder / "overlays" / name)


def _masks(name: str, folder: Path) -> list[Picture]:
    video = SAMPLES / f"{name}.mp4"
    segment_video(video, folder / "masks", model=load_model("nano"), format="masks")
    return _read(folder / "masks" / name)


def _read(folder: Path) -> list[Picture]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def _small(picture: Picture) -> Picture:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)


def _grid(pictures: list[Picture]) -> Picture:
    """Return the pictures two in a row."""
    tiles = [_small(picture) for picture in pictures]
    rows = [np.hstack(tiles[index : index + 2]) for index in range(0, len(tiles), 2)]
    return np.vstack(rows)


def _save(picture: Picture, path: Path) -> None:
    Image.fromarray(picture).save(path, quality=88)


def _animate(frames: list[Picture], path: Path) -> None:
    """Write an animated WebP: the overlay, and below it the waveform with the playing position."""
    bars = _loudness(SAMPLES / "duet.mp4", bars=WIDTH // 4)
    count = round(len(frames) / RATE * ANIMATION_RATE)
    step = RATE / ANIMATION_RATE
    pictures = [
        np.vstack([_small(frames[round(index * step)]), _strip(bars, (index + 0.5) / count)])
        for index in range(count)
    ]
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / ANIMATION_RATE),
        loop=0,
        quality=70,
        method=6,
    )
    if path.stat().st_size > LARGEST_BYTES:
        raise RuntimeError(f"{path} is larger than {LARGEST_BYTES} bytes")


def _loudness(video: Path, bars: int) -> npt.NDArray[np.float32]:
    """Return the RMS level of the sound in `bars` equal parts, relative to the loudest."""
    with av.open(str(video)) as container:
        mono = av.AudioResampler("flt", "mono")
        chunks = [
            part.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for part in mono.resample(frame)
        ]
    parts = np.array_split(np.concatenate(chunks), bars)
    levels = np.array([np.sqrt(np.mean(part**2)) for part in parts], dtype=np.float32)
    return levels / levels.max()


def _strip(bars: npt.NDArray[np.float32], played: float) -> Picture:
    """Draw the waveform; bars up to the fraction `played` are in colour."""
    strip = np.full((STRIP_HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    middle = STRIP_HEIGHT // 2
    for index, level in enumerate(bars):
        half = max(1, round(float(level) * (middle - 6)))
        colour = PLAYED if index < played * len(bars) else UNPLAYED
        strip[middle - half : middle + half, index * 4 + 1 : index * 4 + 3] = colour
    return strip


if __name__ == "__main__":
    main()
