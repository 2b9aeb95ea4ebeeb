"""Convert HDR and wide gamuts to SDR in BT.709."""

from functools import cache
from typing import cast

import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

from av2tsam_cli.values import Float32Array, Float64Array, Pixels

CHROMATICITIES = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
"""CIE x and y of red, green and blue; all have the white point D65."""
D65 = (0.3127, 0.3290)
HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
"""Names of the transfer functions of HDR video."""
REFERENCE_WHITE = 203.0
"""Luminance of reference white in HDR video, cd/m2 (ITU-R BT.2408)."""
HDR_PEAK = 1000.0
"""Peak luminance of the display that HDR video is assumed to be made for, cd/m2: nominal for HLG,
and common for HDR10. Brighter pixels become white."""
HLG_GAMMA = 1.2
"""Gamma of HLG for such a display (BT.2100)."""
SCREEN_GAMMA = 2.4
"""Gamma of SDR displays (BT.1886)."""
STEPS = 1 << 12
"""Number of code values to distinguish in the source; video has at most 12 bits."""
STRIP_PX = 1 << 15
"""Pixels to convert at once: few enough for the processor's cache."""


class ToSdr:
    """Converts the pixels of one kind of source, with tables and a matrix."""

    def __init__(self, transfer: int, primaries: int) -> None:
        self.to_light = _light(transfer).astype(np.float32)
        self.weights = _to_xyz(primaries)[1].astype(np.float32)
        """Shares of the channels in the luminance."""
        self.to_bt709 = (np.linalg.inv(_to_xyz(ColorPrimaries.BT709)) @ _to_xyz(primaries)).astype(
            np.float32
        )
        self.hlg = transfer == ColorTrc.ARIB_STD_B67
        self.peak = HDR_PEAK / REFERENCE_WHITE if transfer in HDR else 1.0
        # Indexed by square roots of light, whose steps are fine in the dark, as vision needs it.
        light = self.peak * np.linspace(0, 1, 1 << 16) ** 2
        shown = _tone_mapped(light) if transfer in HDR else light
        self.to_code = np.rint(65_535 * shown ** (1 / SCREEN_GAMMA)).astype(np.uint16)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Convert pixels, uint16, (H, W, 3), RGB, 0 to 65535."""
        shown = np.empty_like(pixels)
        rows = max(1, STRIP_PX // pixels.shape[1])
        for top in range(0, len(pixels), rows):
            strip = slice(top, top + rows)
            shown[strip] = np.take(self.to_code, self._roots(pixels[strip]))
        return shown

    def _roots(self, pixels: Pixels) -> Pixels:
        """Return the square roots of light in BT.709, 65535 at the peak."""
        light = np.take(self.to_light, pixels // (65_536 // STEPS))
        if self.hlg:
            luminance = cv2.transform(light, self.weights[None])
            light *= cv2.pow(luminance, HLG_GAMMA - 1)[..., None]
        light = cast("Float32Array", cv2.transform(light, self.to_bt709))
        np.clip(light, 0, self.peak, out=light)  # colours outside BT.709 move to its border
        np.sqrt(light, out=light)
        return (light * np.float32(65_535 / self.peak**0.5) + np.float32(0.5)).astype(np.uint16)


@cache
def to_sdr(transfer: int, primaries: int) -> ToSdr | None:
    """Return the converter of a source to SDR in BT.709; None if it is not needed.

    Args:
        transfer: Transfer function of the source, numbered as in libavutil/pixfmt.h.
        primaries: Its primaries, numbered likewise; unknown ones of HDR are taken for BT.2020.
    """
    if transfer in HDR:
        return ToSdr(transfer, primaries if primaries in CHROMATICITIES else ColorPrimaries.BT2020)
    if primaries in CHROMATICITIES and primaries != ColorPrimaries.BT709:
        return ToSdr(transfer, primaries)
    return None


def _light(transfer: int) -> Float64Array:
    """Return the light for each code value, (STEPS,), 1 for white; for HLG, the light of the scene.

    For HLG, it is scaled so that applying the display's gamma gives the light of the display.
    """
    code = np.linspace(0, 1, STEPS)
    if transfer == ColorTrc.SMPTE2084:
        return _pq_light(code) / REFERENCE_WHITE
    if transfer == ColorTrc.ARIB_STD_B67:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        light: Float64Array = scene * (HDR_PEAK / REFERENCE_WHITE) ** (1 / HLG_GAMMA)
        return light
    return code**SCREEN_GAMMA


def _tone_mapped(light: Float64Array) -> Float64Array:
    """Compress light from HDR_PEAK to white, 1 for white (ITU-R BT.2390, section 5.4.1).

    Light below about half of reference white is unchanged. Reference white becomes 78 % of white,
    which leaves room for highlights.
    """
    peak = float(_pq_code(HDR_PEAK))
    code = _pq_code(np.minimum(light * REFERENCE_WHITE, HDR_PEAK)) / peak
    white = float(_pq_code(REFERENCE_WHITE)) / peak
    knee = 1.5 * white - 0.5
    t = (np.maximum(code, knee) - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * white
    )
    return _pq_light(np.where(code < knee, code, spline) * peak) / REFERENCE_WHITE


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
"""Constants of PQ (SMPTE ST 2084)."""


def _pq_light(code: Float64Array) -> Float64Array:
    """Return the luminance of PQ codes from 0 to 1, cd/m2."""
    power = code ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _pq_code(luminance: Float64Array | float) -> Float64Array:
    """Return the PQ codes from 0 to 1 of luminances in cd/m2."""
    power = (np.asarray(luminance) / 10_000) ** _M1
    code: Float64Array = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return code


def _to_xyz(primaries: int) -> Float64Array:
    """Return the matrix from RGB to CIE XYZ; its second row has the shares in the luminance."""

    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1.0, (1 - x - y) / y]

    columns = np.array([xyz(*each) for each in CHROMATICITIES[ColorPrimaries(primaries)]]).T
    return cast("Float64Array", columns * np.linalg.solve(columns, np.array(xyz(*D65))))
