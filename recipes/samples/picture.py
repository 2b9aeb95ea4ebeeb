"""Make docs/duet.jpg from the overlay of sample_media/duet.mp4.

Run from the repository: `python recipes/samples/picture.py`.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from av2tsam_cli import segment_video

SECONDS = (1, 3, 5, 7)
"""One time for each part of the duet."""
RATE = 25
WIDTH = 480


def main() -> None:
    """Write docs/duet.jpg: four frames of the overlay, two by two."""
    with tempfile.TemporaryDirectory() as folder:
        segment_video("sample_media/duet.mp4", folder, format="overlays")
        names = [Path(folder) / "duet" / f"{second * RATE:06d}.png" for second in SECONDS]
        tiles = [_small(cv2.imread(str(name))) for name in names]
    picture = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    Path("docs/duet.jpg").write_bytes(data.tobytes())


def _small(picture: np.ndarray) -> np.ndarray:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
