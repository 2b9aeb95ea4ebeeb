"""Rendered pixels and their exact regions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from av2tsam_cli.synth.painter import CANVAS_REACH
from av2tsam_cli.synth.render import Renderer, render
from av2tsam_cli.synth.scenes import CATEGORIES, sample_scene, scene_rng
from av2tsam_cli.synth.shapes import bounds, draw
from av2tsam_cli.synth.values import Occluder, Scene

TIMES = (0.0, 4.9)


def scenes(count: int) -> list[Scene]:
    return [sample_scene(scene_rng("test", 3, k), subset="ms3") for k in range(count)]


def clean(scene: Scene) -> Scene:
    """The scene without noise, colour cast and compression."""
    camera = replace(
        scene.camera, noise=0.0, jpeg_quality=None, gain=(1, 1, 1), gamma=1.0, flicker=0.0
    )
    return replace(scene, camera=camera)


def size_of(scene: Scene, height: int = 144) -> tuple[int, int]:
    return round(height * scene.width), height


@pytest.mark.parametrize("size", [(256, 144), (128, 128), (91, 77), (640, 360)])
def test_frames_come_at_any_size(size: tuple[int, int]) -> None:
    rgb, ids = render(scenes(1)[0], 1.0, *size)
    assert rgb.shape == (size[1], size[0], 3)
    assert ids.shape == (size[1], size[0])
    assert rgb.dtype == ids.dtype == np.uint8


def test_the_same_scene_and_time_give_the_same_pixels() -> None:
    for scene in scenes(5):
        renderer = Renderer(scene, 96, 96)
        renderer.frame(4.0)  # frames may be requested in any order
        for again, first in zip(renderer.frame(1.5), render(scene, 1.5, 96, 96), strict=True):
            np.testing.assert_array_equal(again, first)


def test_regions_number_the_instances() -> None:
    for scene in scenes(10):
        _, ids = render(scene, 2.0, *size_of(scene))
        assert set(np.unique(ids)) == set(range(len(scene.instances) + 1))


def test_regions_are_where_the_picture_changes_when_an_object_is_removed() -> None:
    """Independent of how regions are computed: remove an object and compare the pixels."""
    for scene in map(clean, scenes(12)):
        rgb, ids = render(scene, 2.0, *size_of(scene))
        for position in range(len(scene.instances)):
            rest = scene.instances[:position] + scene.instances[position + 1 :]
            without, _ = render(replace(scene, instances=rest), 2.0, *size_of(scene))
            change = cv2.absdiff(rgb, without).max(axis=2)
            region = ids == position + 1
            near = cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            assert (change[region] > 0).mean() >= 0.9
            assert (change[~near] > 32).sum() <= 0.01 * region.sum()  # soft edges only


def test_objects_stay_visible_and_of_good_size() -> None:
    shares, extents = [], []
    for scene in scenes(25):
        for time_s in TIMES:
            _, ids = render(scene, time_s, *size_of(scene))
            for position, instance in enumerate(scene.instances):
                alone = replace(scene, instances=(instance,), occluders=())
                _, full = render(alone, time_s, *size_of(scene))
                rows, columns = np.nonzero(full)
                extents.append((max(np.ptp(rows), np.ptp(columns)) + 1) / 144)
                shares.append((ids == position + 1).sum() / (full > 0).sum())
    assert np.mean(np.array(shares) >= 0.45) >= 0.99
    assert np.quantile(extents, 0.01) >= 0.19
    assert np.quantile(extents, 0.99) <= 0.56


def test_occluders_count_as_background() -> None:
    scene = clean(scenes(1)[0])
    bar = Occluder("bar", (scene.width / 2, 0.5), 0.0, 0.2, (255, 0, 255), (255, 0, 255), 0)
    rgb, ids = render(replace(scene, occluders=(bar,)), 1.0, *size_of(scene))
    covered = (rgb == (255, 0, 255)).all(axis=2)
    assert covered.mean() > 0.3
    assert not ids[covered].any()


def test_objects_move_over_time() -> None:
    moved = 0
    for scene in scenes(10):
        renderer = Renderer(scene, *size_of(scene))
        moved += int((renderer.frame(0.5)[1] != renderer.frame(3.0)[1]).any())
    assert moved >= 9


def test_jpeg_and_noise_do_not_touch_the_regions() -> None:
    scene = scenes(1)[0]
    noisy = replace(scene, camera=replace(scene.camera, noise=9.0, jpeg_quality=40))
    rgb, ids = render(noisy, 1.0, 128, 128)
    plain_rgb, plain_ids = render(clean(scene), 1.0, 128, 128)
    np.testing.assert_array_equal(ids, plain_ids)
    assert (rgb != plain_rgb).any()


@pytest.mark.parametrize("category", [category.name for category in CATEGORIES])
def test_drawings_fit_their_canvas(category: str) -> None:
    x, y, half = bounds(category)
    assert abs(x) < 0.2
    assert abs(y) < 0.2
    assert 0.9 < half < 1.25
    for instance in (i for scene in scenes(15) for i in scene.instances):
        coverage = draw(category, instance.appearance, 96)[..., 3]
        edge = np.concatenate([coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]])
        assert not edge.any()


def test_all_silhouettes_differ() -> None:
    """Centred and scaled to 32 pixels, no two silhouettes are the same shape."""
    look = scenes(1)[0].instances[0].appearance
    shapes = []
    for category in CATEGORIES:
        x, y, half = bounds(category.name)
        unit = 128 / (2 * CANVAS_REACH)
        matrix = np.array([[16 / half / unit, 0, 16], [0, 16 / half / unit, 16]])
        matrix[:, 2] -= matrix[0, 0] * (64 + unit * np.array([x, y]))
        alpha = draw(category.name, look, 128)[..., 3]
        shapes.append(cv2.warpAffine(alpha, matrix, (32, 32)) > 127)
    for k, first in enumerate(shapes):
        for second in shapes[k + 1 :]:
            assert (first & second).sum() / (first | second).sum() < 0.87
