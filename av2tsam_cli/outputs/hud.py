"""Draw the time, the sound level and the names in a corner of a frame."""

import numpy as np

from av2tsam_cli.outputs.labels import SMALLEST_TEXT_PX, TEXT_SHARE, make_plate
from av2tsam_cli.values import MaskedFrame, Pixels, levels

QUIETEST_DBFS = -60.0
"""Level at which the meter is empty; at 0 dBFS it is full."""
METER_SHARE = 1 / 5
"""Width of the meter as a share of the frame's width."""
METER_RGB, EMPTY_RGB = (120, 230, 140), (60, 60, 66)
BAR_RGB = (255, 255, 255)


def draw_hud(picture: Pixels, masked: MaskedFrame) -> Pixels:
    """Draw a frame's time, its sound level and the names in view at the bottom left.

    Args:
        picture: The frame as drawn so far, (H, W, 3), RGB; not modified.
        masked: The frame with its masks.

    Returns:
        The image, like the picture. Elements that do not fit are left out.
    """
    picture = picture.copy()
    height, width = picture.shape[:2]
    size_px = max(SMALLEST_TEXT_PX, round(min(height, width) * TEXT_SHARE))
    gap = size_px // 2
    bottom = height - gap
    if masked.level_dbfs is not None:
        bottom = _draw_meter(picture, masked.level_dbfs, gap, bottom, size_px)
    plate = make_plate(_text(masked), BAR_RGB, size_px, width - 2 * gap)
    if plate is not None and plate.size[0] + gap <= width and plate.size[1] <= bottom:
        plate.draw_on(picture, gap, bottom - plate.size[1])
    return picture


def _draw_meter(picture: Pixels, level_dbfs: float, left: int, bottom: int, size: int) -> int:
    """Draw the level as a bar, in place; return the row above which there is free space."""
    thickness, full = max(3, size // 3), round(picture.shape[1] * METER_SHARE)
    share = min(1.0, max(0.0, 1 - level_dbfs / QUIETEST_DBFS))
    rows = slice(max(0, bottom - thickness), bottom)
    picture[rows, left : left + full] = np.multiply(EMPTY_RGB, levels(picture))
    picture[rows, left : left + round(full * share)] = np.multiply(METER_RGB, levels(picture))
    return bottom - thickness - size // 4


def _text(masked: MaskedFrame) -> str:
    minutes, seconds = divmod(masked.frame.time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    words = [f"{hours}:{minutes:02d}:{int(seconds * 100) / 100:05.2f}"]
    if masked.level_dbfs is not None:
        silent = np.isneginf(masked.level_dbfs)
        words.append("digital silence" if silent else f"{masked.level_dbfs:.0f} dBFS")
    if masked.sources is not None:
        words += [name for _, name in masked.sources.in_view]
    return "   ".join(words)
