"""Folders of PNGs: names, values, and folders that are complete or absent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.outputs.names import COLOURS
from av2tsam_cli.outputs.overlay import draw_overlay
from av2tsam_cli.outputs.writers import Format
from av2tsam_cli.values import Frame, SourceMasks

from .conftest import two_sources

MakeClip = Callable[..., Path]
Job = Callable[..., list[float]]


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(picture, np.uint8)


def left_of(frame: Frame) -> npt.NDArray[np.bool_]:
    """A mask whose width is the frame's index."""
    mask = np.zeros(frame.rgb.shape[:2], bool)
    mask[:, : frame.index] = True
    return mask


def test_one_mask_per_frame_of_0_and_255(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip("duet.mp4", size=(62, 46)), tmp_path / "out", "masks", masked=left_of)
    files = sorted((tmp_path / "out" / "duet").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(25)]
    for k, file in enumerate(files):
        mask = read_png(file)
        assert mask.shape == (46, 62)
        assert mask.dtype == np.uint8
        assert (mask[:, :k] == 255).all()
        assert (mask[:, k:] == 0).all()


def test_overlays_are_the_drawn_frames_in_true_colours(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    seen = {}

    def masked(frame: Frame) -> npt.NDArray[np.bool_]:
        seen[frame.index] = draw_overlay(frame.rgb, left_of(frame))
        return left_of(frame)

    job(make_clip(), tmp_path / "out", "overlays", masked=masked)
    files = sorted((tmp_path / "out" / "clip").iterdir())
    assert len(files) == 25
    np.testing.assert_array_equal(read_png(files[20])[:, :, ::-1], seen[20])


def test_names_outside_ascii(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip("夏 ñ.mp4", seconds=0.2), tmp_path / "où", "masks")
    assert len(list((tmp_path / "où" / "夏 ñ").iterdir())) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_a_failure_leaves_nothing_behind(
    make_clip: MakeClip, job: Job, tmp_path: Path, error: BaseException
) -> None:
    clip = make_clip()
    with pytest.raises(type(error)):
        job(clip, tmp_path / "a" / "b", "masks", fail_after=7, error=error)
    assert list(tmp_path.iterdir()) == [clip]


def test_a_failure_keeps_the_earlier_result(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip()
    job(clip, tmp_path / "out", "masks", stop_s=0.2)
    with pytest.raises(ValueError, match="no"):
        job(clip, tmp_path / "out", "masks", overwrite=True, fail_after=7, error=ValueError("no"))
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(list((tmp_path / "out" / "clip").iterdir())) == 5


def test_overwriting_replaces_the_whole_folder(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    clip = make_clip()
    job(clip, tmp_path / "out", "masks")
    job(clip, tmp_path / "out", "masks", stop_s=0.2, overwrite=True)
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(list((tmp_path / "out" / "clip").iterdir())) == 5


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(
    make_clip: MakeClip, job: Job, tmp_path: Path, files_up_to: Callable[[int], Any]
) -> None:
    clip = make_clip()
    with files_up_to(60), pytest.raises(Av2tsamError, match="cannot be written") as failed:
        job(clip, tmp_path / "out", "overlays")
    assert failed.value.exit_code == 1
    assert str(failed.value).startswith(str(tmp_path / "out" / "clip"))
    assert list(tmp_path.iterdir()) == [clip]


def test_named_masks_are_a_folder_per_name(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip("duet.mp4", seconds=0.2), tmp_path / "out", "named-masks", named=two_sources)
    folder = tmp_path / "out" / "duet"
    assert json.loads((folder / "names.json").read_text("utf-8")) == {
        "frames": 5,
        "names": [
            {"name": "dog", "folder": "dog", "frames": 5},
            {"name": "acoustic guitar", "folder": "acoustic guitar", "frames": 3},
        ],
    }
    assert sorted(file.name for file in folder.iterdir()) == [
        "acoustic guitar",
        "dog",
        "names.json",
    ]
    assert len(list((folder / "dog").iterdir())) == 5
    guitar = sorted((folder / "acoustic guitar").iterdir())
    assert [file.name for file in guitar] == ["000002.png", "000003.png", "000004.png"]
    mask = np.asarray(Image.open(guitar[0]))
    assert mask.dtype == np.uint8
    assert (mask[10:30, 40:60] == 255).all()
    assert np.count_nonzero(mask) == 20 * 20


def test_indexed_masks_are_palette_images_in_the_colours_of_the_overlays(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    job(make_clip("duet.mp4", seconds=0.2), tmp_path / "out", "indexed-masks", named=two_sources)
    folder = tmp_path / "out" / "duet"
    assert json.loads((folder / "names.json").read_text("utf-8")) == {
        "frames": 5,
        "names": [
            {"index": 1, "name": "dog", "colour": list(COLOURS[0]), "frames": 5},
            {"index": 2, "name": "acoustic guitar", "colour": list(COLOURS[1]), "frames": 3},
        ],
    }
    files = sorted(folder.glob("*.png"))
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(5)]
    with Image.open(files[2]) as image:
        assert image.mode == "P"
        numbers, colours = np.asarray(image), np.asarray(image.convert("RGB"))
    assert files[2].read_bytes()[24:26] == b"\x08\x03"  # 8 bits per pixel, with a palette
    expected = np.zeros((48, 64), np.uint8)
    expected[10:30, 4:20], expected[10:30, 40:60] = 1, 2
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(colours[15, 10], COLOURS[0])
    np.testing.assert_array_equal(colours[15, 50], COLOURS[1])
    np.testing.assert_array_equal(colours[0, 0], 0)


@pytest.mark.parametrize("kind", ["named-masks", "indexed-masks"])
def test_a_video_in_which_nothing_is_named(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    job(make_clip(seconds=0.2), tmp_path, kind)
    summary = json.loads((tmp_path / "clip" / "names.json").read_text("utf-8"))
    assert summary == {"frames": 5, "names": []}
    pictures = [np.asarray(Image.open(file)) for file in (tmp_path / "clip").glob("*.png")]
    assert len(pictures) == (5 if kind == "indexed-masks" else 0)
    assert not np.any(pictures)


def test_indexed_masks_hold_255_names(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip(times_s=[0.0, 0.04, 0.08])

    def many(frame: Frame) -> SourceMasks:
        labels = np.zeros((48, 64), np.uint8)
        labels[:1] = np.arange(1, 65)
        numbers = range(64 * frame.index + 1, 64 * frame.index + 65)
        return SourceMasks(tuple(f"name {k}" for k in numbers), labels, numbers=tuple(numbers))

    def too_many(frame: Frame) -> SourceMasks:
        labels = np.arange(48 * 64).reshape(48, 64) % 200
        numbers = range(200 * frame.index + 1, 200 * frame.index + 201)
        names = tuple(f"name {k}" for k in numbers)
        return SourceMasks(names, labels.astype(np.uint8), numbers=tuple(numbers))

    job(clip, tmp_path, "indexed-masks", named=many)
    last = np.asarray(Image.open(tmp_path / "clip" / "000002.png"))
    assert last[0].tolist() == list(range(129, 193))
    with pytest.raises(UsageError, match="more than 255 names are heard"):
        job(clip, tmp_path / "more", "indexed-masks", named=too_many)
    assert not (tmp_path / "more").exists()
    job(clip, tmp_path / "more", "named-masks", named=too_many)


def test_overlays_with_names_differ_only_if_names_are_wanted(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    clip = make_clip(seconds=0.2)
    for name, how in {
        "plain": {},
        "unnamed": {"named": two_sources},
        "named": {"named": two_sources, "names": True},
    }.items():
        job(clip, tmp_path / name, "overlays", **how)
    files = ["clip/000000.png", "clip/000004.png"]
    plain, unnamed, named = (
        [(tmp_path / name / file).read_bytes() for file in files]
        for name in ("plain", "unnamed", "named")
    )
    assert plain == unnamed
    assert plain[0] != named[0]
    assert plain[1] != named[1]


@pytest.mark.parametrize("kind", ["named-masks", "indexed-masks"])
@pytest.mark.parametrize("size", [60, 90])
def test_a_full_disk_leaves_no_half_result_with_names(
    make_clip: MakeClip,
    job: Job,
    tmp_path: Path,
    files_up_to: Callable[[int], Any],
    kind: Format,
    size: int,
) -> None:
    clip = make_clip()
    with files_up_to(size), pytest.raises(Av2tsamError, match="cannot be written"):
        job(clip, tmp_path / "out", kind, named=two_sources)
    assert list(tmp_path.iterdir()) == [clip]
