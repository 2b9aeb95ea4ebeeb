"""Masks and overlays as PNG pictures, one per frame, in a folder."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.overlay import DEFAULT_STYLE, OverlayStyle, draw_overlay
from av2tsam_cli.outputs.staging import (
    discard,
    make_folders,
    publish,
    remove_if_empty,
    staging_path,
    writing,
)
from av2tsam_cli.values import Frame, UInt8Array

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
"""Fast: twice the speed of the default for a tenth more bytes."""


class PngFolder(ABC):
    """Writes `000000.png`, `000001.png`, ... into a folder that appears when it is complete."""

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self.outputs: tuple[Path, ...] = (folder,)
        self._part = staging_path(folder)
        self._made: list[Path] = []

    @abstractmethod
    def picture(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> UInt8Array:
        """The picture of one frame as OpenCV writes it: (H, W), or (H, W, 3) in BGR."""

    def write(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> None:
        """Write one picture, named by the frame's index.

        Args:
            frame: The frame.
            mask: What sounds in it, bool, (H, W).

        Raises:
            Av2tsamError: It cannot be written.
        """
        # Encoded here, written by Python: cv2.imwrite fails silently on some paths.
        _, png = cv2.imencode(".png", self.picture(frame, mask), PNG_OPTIONS)
        with writing(self.folder):
            (self._part / f"{frame.index:06d}.png").write_bytes(png.data)

    def __enter__(self) -> Self:
        with writing(self.folder):
            self._made = make_folders(self.folder.parent)
            self._part.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with writing(self.folder):
                    publish(self._part, self.folder, overwrite=self.overwrite)
        finally:
            discard(self._part)
            remove_if_empty(self._made)


class MaskFolder(PngFolder):
    """8-bit masks, 255 where something sounds and 0 elsewhere."""

    def picture(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> UInt8Array:
        """The mask as grey levels 0 and 255."""
        del frame
        return mask.view(np.uint8) * np.uint8(255)


class OverlayFolder(PngFolder):
    """Frames with the mask drawn on them."""

    def __init__(
        self, folder: Path, *, overwrite: bool, style: OverlayStyle = DEFAULT_STYLE
    ) -> None:
        super().__init__(folder, overwrite=overwrite)
        self.style = style

    def picture(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> UInt8Array:
        """The overlay in OpenCV's channel order."""
        overlay = draw_overlay(frame.rgb, mask, self.style)
        return np.asarray(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR), np.uint8)
