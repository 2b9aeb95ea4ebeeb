"""Masks and overlays as PNG images, one per frame, in a folder."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.files import atomic_folder, write_errors
from av2tsam_cli.outputs.overlay import draw_overlay
from av2tsam_cli.values import Frame, UInt8Array

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
"""Twice as fast as the default, for 10 % larger files."""


class PngWriter:
    """Write `000000.png`, `000001.png`, ... into a folder that appears when it is complete."""

    def __init__(
        self,
        folder: Path,
        draw: Callable[[Frame, npt.NDArray[np.bool_]], UInt8Array],
        *,
        overwrite: bool,
    ) -> None:
        self.folder, self.draw, self.overwrite = folder, draw, overwrite
        self.outputs: tuple[Path, ...] = (folder,)
        self._open = ExitStack()

    def write(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> None:
        """Write one image, named by the frame's index.

        Args:
            frame: The frame.
            mask: Its mask, bool, (H, W).

        Raises:
            Av2tsamError: The image cannot be written.
        """
        # Encoded here and written by Python: cv2.imwrite fails silently on some paths.
        _, png = cv2.imencode(".png", self.draw(frame, mask), PNG_OPTIONS)
        with write_errors(self.folder):
            (self._part / f"{frame.index:06d}.png").write_bytes(png.data)

    def __enter__(self) -> Self:
        with write_errors(self.folder):
            folder = atomic_folder(self.folder, overwrite=self.overwrite)
            self._part = self._open.enter_context(folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with write_errors(self.folder):
            self._open.__exit__(kind, error, trace)


def mask_image(frame: Frame, mask: npt.NDArray[np.bool_]) -> UInt8Array:
    """Return the mask as 8-bit grey levels, (H, W): 255 inside, 0 outside."""
    del frame
    return mask.view(np.uint8) * np.uint8(255)


def overlay_image(frame: Frame, mask: npt.NDArray[np.bool_]) -> UInt8Array:
    """Return the frame with the mask drawn on it, (H, W, 3), in OpenCV's BGR order."""
    return np.asarray(cv2.cvtColor(draw_overlay(frame.rgb, mask), cv2.COLOR_RGB2BGR), np.uint8)
