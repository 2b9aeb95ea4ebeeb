"""Data sets, read back as their users do and compared with the masks."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.outputs.datasets import run_lengths
from av2tsam_cli.outputs.polygons import outlines
from av2tsam_cli.outputs.writers import Format, check_target
from av2tsam_cli.pipeline import iter_masks, segment_video
from av2tsam_cli.plan import plan_video
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.values import Frame

from .conftest import Job, middle, two_sources

pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl.*:DeprecationWarning")
"""Of pycocotools, with NumPy 2."""

BoolArray = npt.NDArray[np.bool_]
Masks = dict[str, BoolArray]
"""The masks of one frame, by name."""
MakeClip = Callable[..., Path]
FORMATS: tuple[Format, ...] = ("coco", "yolo", "npz")
UNNAMED = "sound source"


def read_coco(folder: Path) -> list[Masks]:
    with redirect_stdout(StringIO()):
        data = COCO(str(folder / "annotations.json"))
    frames = []
    for number in sorted(data.imgs):
        image, masks = data.imgs[number], {}
        picture = cv2.imread(str(folder / "images" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        for annotation in data.loadAnns(data.getAnnIds(imgIds=number)):
            mask = data.annToMask(annotation).astype(bool)
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == list(coco_mask.toBbox(annotation["segmentation"]))
            assert 0 <= annotation["score"] <= 1
            masks[data.cats[annotation["category_id"]]["name"]] = mask
        frames.append(masks)
    return frames


def read_yolo(folder: Path) -> list[Masks]:
    """Fill the polygons as Ultralytics does: places become whole pixels by rounding down."""
    names = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))["names"]
    frames = []
    for picture in sorted((folder / "images").iterdir()):
        height, width = cv2.imread(str(picture)).shape[:2]
        masks: Masks = {}
        for line in (folder / "labels" / f"{picture.stem}.txt").read_text().splitlines():
            number, *places = line.split()
            points = np.array(places, float).reshape(-1, 2)
            assert len(points) >= 3
            assert ((points > 0) & (points < 1)).all()
            part = np.zeros((height, width), np.uint8)
            cv2.fillPoly(part, [(points * (width, height)).astype(np.int32)], 1)
            name = names[int(number)]
            masks[name] = masks.get(name, np.zeros(part.shape, bool)) | part.astype(bool)
        frames.append(masks)
    return frames


def read_npz(folder: Path) -> list[Masks]:
    with np.load(folder / "masks.npz", allow_pickle=False) as data:
        masks = np.unpackbits(data["masks"], axis=2, count=int(data["width"])).astype(bool)
        assert len(data["times_s"]) == len(data["scores"]) == len(masks)
        if "labels" not in data:
            return [{UNNAMED: mask} if mask.any() else {} for mask in masks]
        labels, names = data["labels"], data["names"]
    assert ((labels > 0) == masks).all()
    return [
        {str(name): each == k for k, name in enumerate(names, start=1) if (each == k).any()}
        for each in labels
    ]


READERS = {"coco": read_coco, "yolo": read_yolo, "npz": read_npz}


def same(found: list[Masks], expected: list[Masks]) -> bool:
    return [set(each) for each in found] == [set(each) for each in expected] and all(
        (mask == other[name]).all()
        for each, other in zip(found, expected, strict=True)
        for name, mask in each.items()
    )


def by_name(frame: Frame) -> Masks:
    sources = two_sources(frame)
    masks = {name: sources.labels == k for k, name in enumerate(sources.names, start=1)}
    return {name: mask for name, mask in masks.items() if mask.any()}


def with_hole_and_parts(frame: Frame) -> BoolArray:
    mask = middle(frame)
    mask[20:28, 20:30] = mask[22:25, 34:36] = False
    mask[23, 25] = mask[0, 0] = mask[40:46, -3:] = True
    return mask


@pytest.mark.parametrize("kind", FORMATS)
def test_named_masks_are_read_back(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    frames: list[Masks] = []

    def named(frame: Frame) -> object:
        frames.append(by_name(frame))
        return two_sources(frame)

    def masked(frame: Frame) -> BoolArray:
        return two_sources(frame).labels > 0

    clip = make_clip("duet.mp4", seconds=0.2)
    job(clip, tmp_path / "out", kind, masked=masked, named=named)
    found = READERS[kind](tmp_path / "out" / "duet")
    assert len(found) == 5
    assert same(found, frames)


@pytest.mark.parametrize("kind", FORMATS)
def test_masks_without_names_are_read_back_with_their_holes_and_parts(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    frames: list[Masks] = []

    def masked(frame: Frame) -> BoolArray:
        mask = with_hole_and_parts(frame) if frame.index != 1 else np.zeros((48, 64), bool)
        frames.append({UNNAMED: mask} if mask.any() else {})
        return mask

    job(make_clip("duet.mp4", seconds=0.2), tmp_path / "out", kind, masked=masked)
    assert same(READERS[kind](tmp_path / "out" / "duet"), frames)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_data_set_has_the_masks_of_iter_masks(
    make_clip: MakeClip, tiny_model: Path, tmp_path: Path, kind: Format
) -> None:
    clip = make_clip("duet.mp4", seconds=0.4, rate=10)
    words = {"text": "the dog", "start": 0.1, "model": load_model(tiny_model, use="text")}
    (folder,) = segment_video(clip, tmp_path / "out", format=kind, **words).outputs
    frames = list(iter_masks(clip, **words))
    assert same(READERS[kind](folder), [{"the dog": each.mask} for each in frames])
    times_s = [each.frame.time_s for each in frames]
    if kind == "coco":
        images = json.loads((folder / "annotations.json").read_text("utf-8"))["images"]
        assert [image["time_s"] for image in images] == pytest.approx(times_s, abs=1e-6)
    if kind == "npz":
        assert list(np.load(folder / "masks.npz")["times_s"]) == times_s


def masks() -> Iterator[BoolArray]:
    generator = np.random.default_rng(0)
    yield from (np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool))
    for _ in range(150):
        height, width = generator.integers(1, 50, 2)
        noise = generator.standard_normal((height, width)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), generator.choice([0.3, 1, 3]))
        yield smooth > generator.uniform(-1, 1) * smooth.std()


def test_run_lengths_are_those_of_pycocotools() -> None:
    for mask in masks():
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert run_lengths(mask) == expected["counts"].decode()


def test_outlines_enclose_exactly_the_mask() -> None:
    for mask in masks():
        filled = np.zeros(mask.shape, np.uint8)
        for points in outlines(mask):
            part = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(part, [points], 1)
            assert cv2.connectedComponents(part)[0] == 2
            filled |= part
        assert (filled.astype(bool) == mask).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_only_a_data_set_of_ours_is_replaced(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    clip, folder = make_clip("duet.mp4", seconds=0.1), tmp_path / "out" / "duet"
    job(clip, tmp_path / "out", kind)
    check_target(tmp_path / "out" / "duet", kind, source=clip, overwrite=True)
    main = {"coco": "annotations.json", "yolo": "data.yaml", "npz": "masks.npz"}[kind]
    (folder / main).write_text("{}")
    with pytest.raises(UsageError, match="contains other files"):
        check_target(tmp_path / "out" / "duet", kind, source=clip, overwrite=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_data_set_that_fails_leaves_nothing(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    clip = make_clip("duet.mp4", seconds=0.2)
    with pytest.raises(KeyboardInterrupt):
        job(clip, tmp_path / "out", kind, fail_after=3, error=KeyboardInterrupt())
    assert not (tmp_path / "out").exists()


def test_the_examples_of_the_documentation_run(
    make_clip: MakeClip, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, clip = load_model(tiny_model, use="text"), make_clip("1.mp4", seconds=0.1)
    segment_video(clip, "a", format="coco", text="the dog", frames_csv=Path("tables"), model=model)
    segment_video(clip, "b", format="npz", text="the dog", model=model)
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        folder = "b" if "npz" in code else "a"
        exec(code.replace("sets/1/", f"{folder}/1/"), {})  # noqa: S102 - our own code


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_an_error_and_leaves_nothing(
    make_clip: MakeClip,
    job: Job,
    tmp_path: Path,
    files_up_to: Callable[[int], Any],
    kind: Format,
) -> None:
    clip = make_clip("duet.mp4", seconds=0.4)
    with files_up_to(400), pytest.raises(Av2tsamError, match="duet: cannot be written"):
        job(clip, tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sets.json", "masks.npz", "data.yaml", "o.mp4"])
def test_a_data_set_needs_a_folder(make_clip: MakeClip, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"`format` coco needs a folder"):
        plan_video(make_clip(seconds=0.1), tmp_path / name, SegmentOptions(format="coco"))
