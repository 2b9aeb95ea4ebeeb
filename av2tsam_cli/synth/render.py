"""Render scenes: frames at any size and time, with the exact visible regions."""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.backdrop import BACKDROP_MARGIN, draw_backdrop
from av2tsam_cli.synth.painter import CANVAS_REACH, smooth
from av2tsam_cli.synth.shapes import bounds, draw
from av2tsam_cli.synth.values import Camera, Instance, Motion, Occluder, Scene
from av2tsam_cli.values import UInt8Array

_OPAQUE = 128
"""Smallest coverage, of 255, at which a pixel belongs to an object."""
_NOISE_TILE_PX = 512
_NOISE_TILE_STD = 24.0


@dataclass(frozen=True)
class _Sprite:
    pixels: UInt8Array
    """Premultiplied RGBA of the object alone, (h, w, 4)."""
    to_scene: npt.NDArray[np.float64]
    """(2, 3), maps its pixels to scene units about the object's centre, without its motion."""
    corners: npt.NDArray[np.float64]
    """(4, 3): its corners in pixels, homogeneous."""


class Renderer:
    """Renders the frames of one scene at one size; backdrop and objects are drawn once."""

    def __init__(self, scene: Scene, width_px: int, height_px: int) -> None:
        self._scene = scene
        self._size = (width_px, height_px)
        self._scale = np.array([width_px / scene.width, height_px], np.float64)  # pixels per unit
        margin = np.ceil(BACKDROP_MARGIN * self._scale).astype(int) + 1
        self._margin = margin
        wide, high = self._size + 2 * margin
        self._backdrop = draw_backdrop(scene.background, int(wide), int(high), scene.width)
        self._sprites = [_draw_sprite(i, float(self._scale.max())) for i in scene.instances]
        self._tone = _tone_curves(scene.camera)

    def frame(self, time_s: float) -> tuple[UInt8Array, UInt8Array]:
        """Return RGB (H, W, 3) and visible regions (H, W), both uint8, at a time in seconds.

        Regions hold 0 for the background and position + 1 where that instance is visible.
        """
        scene = self._scene
        offset = camera_offset(scene.camera, time_s)
        rgb = self._crop_backdrop(offset)
        ids = np.zeros(rgb.shape[:2], np.uint8)
        for position in range(len(scene.instances)):
            self._draw_instance(rgb, ids, position, time_s, offset)
        for occluder in scene.occluders:
            self._occlude(rgb, ids, occluder, offset)
        return self._expose(rgb, time_s), ids

    def _crop_backdrop(self, offset: npt.NDArray[np.float64]) -> UInt8Array:
        """Cut the frame's part out of the backdrop, interpolating between whole pixels."""
        (width, height), corner = self._size, self._margin - offset * self._scale
        x, y = (int(c) for c in corner)
        part_x, part_y = corner - (x, y)
        wide = self._backdrop[y : y + height + 1]
        rows = cv2.addWeighted(wide[:-1], 1 - part_y, wide[1:], part_y, 0)
        left, right = rows[:, x : x + width], rows[:, x + 1 : x + width + 1]
        return np.asarray(cv2.addWeighted(left, 1 - part_x, right, part_x, 0))

    def _draw_instance(
        self,
        rgb: UInt8Array,
        ids: UInt8Array,
        position: int,
        time_s: float,
        offset: npt.NDArray[np.float64],
    ) -> None:
        """Warp one object onto its bounding box in the frame."""
        sprite = self._sprites[position]
        centre, angle, scale = pose(self._scene.instances[position].motion, time_s)
        c, s = math.cos(angle) * scale, math.sin(angle) * scale
        matrix = self._scale[:, None] * (np.array([[c, -s], [s, c]]) @ sprite.to_scene)
        matrix[:, 2] += (centre + offset) * self._scale - 0.5
        reach = sprite.corners @ matrix.T
        low = np.maximum(np.floor(reach.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(reach.max(axis=0)) + 1, self._size).astype(int)
        if (high <= low).any():
            return
        matrix[:, 2] -= low
        warped = cv2.warpAffine(sprite.pixels, matrix, tuple((high - low).tolist()))
        box = (slice(low[1], high[1]), slice(low[0], high[0]))
        _blend(rgb[box], warped)
        ids[box][warped[..., 3] >= _OPAQUE] = position + 1

    def _occlude(
        self, rgb: UInt8Array, ids: UInt8Array, occluder: Occluder, offset: npt.NDArray[np.float64]
    ) -> None:
        outline = occluder_outline(occluder, self._scene.width) + 1.5 * offset  # nearer: parallax
        pixels = np.rint((outline * self._scale - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(rgb, [pixels], occluder.colour, cv2.LINE_AA, 4)
        edge_px = max(1, round(0.008 * self._size[1]))
        cv2.polylines(rgb, [pixels], True, occluder.edge, edge_px, cv2.LINE_AA, 4)
        cv2.fillPoly(ids, [pixels], 0, cv2.LINE_8, 4)
        cv2.polylines(ids, [pixels], True, 0, edge_px, cv2.LINE_8, 4)

    def _expose(self, rgb: UInt8Array, time_s: float) -> UInt8Array:
        """Apply tone, flicker, sensor noise and compression."""
        camera = self._scene.camera
        rgb = cv2.LUT(rgb, self._tone)
        gain = 1 + camera.flicker * np.sin(2 * np.pi * 0.7 * time_s + camera.phase)
        if camera.noise > 0:
            tile = _noise_tile(rgb.shape[0], rgb.shape[1], round(time_s * 1000))
            weight = camera.noise / _NOISE_TILE_STD
            rgb = cv2.addWeighted(rgb, gain, tile, weight, -128 * weight)
        else:
            rgb = cv2.convertScaleAbs(rgb, alpha=gain)
        return _compress(rgb, camera.jpeg_quality) if camera.jpeg_quality else np.asarray(rgb)


def render(scene: Scene, time_s: float, width: int, height: int) -> tuple[UInt8Array, UInt8Array]:
    """Draw one frame of a scene; see `Renderer.frame`. For many frames keep a `Renderer`."""
    return Renderer(scene, width, height).frame(time_s)


def pose(motion: Motion, time_s: float) -> tuple[npt.NDArray[np.float64], float, float]:
    """Return centre (2,), angle in radians and scale of an object at a time in seconds."""
    wave = 2 * math.pi * motion.rate_hz * time_s + motion.phase
    s, c = math.sin(wave), math.cos(wave)
    x = motion.centre[0] + motion.drift[0] * time_s + motion.sway[0] * s
    y = motion.centre[1] + motion.drift[1] * time_s + motion.sway[1] * c - motion.bounce * abs(s)
    return np.array((x, y)), motion.angle + motion.rock * s, 1 + motion.pulse * c


def camera_offset(camera: Camera, time_s: float) -> npt.NDArray[np.float64]:
    """Return the offset (x, y) of the whole picture at a time in seconds."""
    wave = 2 * np.pi * camera.rate_hz * time_s + camera.phase
    return np.array([camera.drift[0] * np.sin(wave), camera.drift[1] * np.cos(0.8 * wave)])


def occluder_outline(occluder: Occluder, width: float) -> npt.NDArray[np.float64]:
    """Return the closed outline (N, 2) of a foreground shape in scene units."""
    centre = np.array(occluder.centre)
    if occluder.kind == "bar":
        along = np.array([np.cos(occluder.angle), np.sin(occluder.angle)])
        across = np.array([-along[1], along[0]]) * occluder.half_width
        far = along * (width + 2)
        return np.stack(
            [
                centre - far - across,
                centre + far - across,
                centre + far + across,
                centre - far + across,
            ]
        )
    rng = np.random.default_rng(occluder.seed)
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radii = occluder.half_width * rng.uniform(0.75, 1.25, 9)
    return centre + smooth(np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None])


def _draw_sprite(instance: Instance, unit_px: float) -> _Sprite:
    """Draw an object a little larger than its largest size in the frame, to keep it sharp."""
    x, y, half = bounds(instance.category)
    grow = instance.size / 2 / half  # scene units per drawing unit
    size_px = int(np.clip(np.ceil(2 * CANVAS_REACH * grow * unit_px * 1.1), 16, 1024))
    pixels = draw(instance.category, instance.appearance, size_px)
    across = np.sqrt(instance.stretch)
    flip = -1.0 if instance.flip else 1.0
    shape = np.array([[flip * across, instance.shear], [0.0, 1 / across]]) * grow
    per_px = 2 * CANVAS_REACH / size_px
    left, top, width, height = cv2.boundingRect(pixels[..., 3])
    origin = np.array([left, top]) + 0.5  # of the first pixel that is kept
    to_scene = np.zeros((2, 3))
    to_scene[:, :2] = shape * per_px
    to_scene[:, 2] = shape @ (origin * per_px - CANVAS_REACH - np.array([x, y]))
    ends = [(u, v, 1.0) for u in (-1, width) for v in (-1, height)]
    kept = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    return _Sprite(kept, to_scene, np.array(ends))


def _blend(below: UInt8Array, above: UInt8Array) -> None:
    """Composite premultiplied RGBA over RGB, in place."""
    through = cv2.cvtColor(255 - above[..., 3], cv2.COLOR_GRAY2RGB)
    kept = cv2.multiply(below, through, scale=1 / 255)
    cv2.add(kept, cv2.cvtColor(above, cv2.COLOR_RGBA2RGB), dst=below)


def _tone_curves(camera: Camera) -> UInt8Array:
    """Return one table (1, 256, 3) for tone curve and colour cast."""
    curve = 255 * (np.arange(256) / 255) ** camera.gamma
    table = np.clip(curve[None, :, None] * np.array(camera.gain), 0, 255)
    return np.asarray(np.rint(table), dtype=np.uint8)


@cache
def _noise_bank(height_px: int, width_px: int) -> UInt8Array:
    """Return fixed noise, tiled so that a frame can be cut out at any offset within one tile."""
    noise = np.random.default_rng(0).normal(128, _NOISE_TILE_STD, (_NOISE_TILE_PX,) * 2 + (3,))
    tile = np.clip(np.rint(noise), 0, 255).astype(np.uint8)
    return np.pad(tile, ((0, height_px), (0, width_px), (0, 0)), mode="wrap")


def _noise_tile(height_px: int, width_px: int, seed: int) -> UInt8Array:
    """Cut a piece out of the fixed noise, at an offset that depends on the seed."""
    bank = _noise_bank(height_px, width_px)
    y, x = (seed * 7919) % _NOISE_TILE_PX, (seed * 104729) % _NOISE_TILE_PX
    return bank[y : y + height_px, x : x + width_px]


def _compress(rgb: UInt8Array, quality: int) -> UInt8Array:
    """Pass a frame through JPEG. RGB is taken for BGR, which hardly changes the artefacts."""
    _, data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
