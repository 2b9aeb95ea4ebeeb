"""Predicted masks and logits as files, in the layouts that other programs write."""

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from av2tsam_cli.avsbench_format import Subset
from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.errors import MediaError
from av2tsam_cli.evaluation.mask_files import (
    logits_path,
    mask_path,
    read_prediction,
    write_logits,
    write_masks,
)

SIZE = (6, 8)
PROBABILITIES = np.random.default_rng(0).integers(0, 256, (5, *SIZE)).astype(np.uint8)


def clip_of(subset: Subset) -> Clip:
    """Return a test video of five seconds; only its paths matter."""
    masks = {
        "s4": "gt_masks/test/dog/v.1/v.1_{}.png",
        "ms3": "gt_masks/test/v.1/v.1_{}.png",
        "avss": "v1m/v.1/labels_rgb/{}.png",
    }[subset]
    first = 0 if subset == "avss" else 1
    paths = tuple(Path("/data") / masks.format(first + k) for k in range(5))
    category = "dog" if subset == "s4" else None
    return Clip("v.1", category, "test", subset, paths, paths, Path("v.1.wav"))


def save(folder: Path, name: str, images: npt.NDArray[np.uint8] = PROBABILITIES) -> None:
    """Save grey images as `name`, with {} for their number from 0."""
    for k, image in enumerate(images):
        path = folder / name.format(k)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def read(folder: Path, subset: Subset = "s4") -> npt.NDArray[np.float32]:
    """Return the probabilities of a video."""
    logits: npt.NDArray[np.float32] = (
        read_prediction(folder, clip_of(subset), SIZE).logits.sigmoid().numpy()
    )
    return logits


@pytest.mark.parametrize(
    ("subset", "name"),
    [
        ("s4", "test/dog/v.1/v.1_{}.png"),
        ("s4", "dog/v.1/v.1_{}.png"),  # AVSBench's save_mask
        ("ms3", "v.1/v.1_{}.png"),  # the same for MS3
        ("avss", "v1m/v.1/labels_rgb/{}.png"),
        ("avss", "v.1/{}.png"),
    ],
)
def test_frames_numbered_from_0_are_read(subset: Subset, name: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    np.testing.assert_allclose(read(tmp_path, subset), PROBABILITIES / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["test/dog/v.1/v.1_{}.png", "dog/v.1/v.1_{}.png"])
def test_frames_numbered_from_1_are_read(name: str, tmp_path: Path) -> None:
    for k in range(5):
        save(tmp_path, name.format(k + 1), PROBABILITIES[k : k + 1])
    np.testing.assert_allclose(read(tmp_path), PROBABILITIES / 255, atol=1e-6)


@pytest.mark.parametrize("subset", ["s4", "ms3", "avss"])
def test_written_masks_and_logits_are_read_back(subset: Subset, tmp_path: Path) -> None:
    clip = clip_of(subset)
    masks = PROBABILITIES > 127
    write_masks(tmp_path / "masks", clip, masks)
    assert (tmp_path / "masks" / mask_path(clip, 4)).is_file()
    np.testing.assert_array_equal(read(tmp_path / "masks", subset), masks)
    logits = np.random.default_rng(1).normal(0, 5, (5, *SIZE)).astype(np.float32)
    logits[2] = -np.inf
    write_logits(tmp_path / "logits", clip, logits)
    assert logits_path(clip).name == "v.1.npz"
    found = read_prediction(tmp_path / "logits", clip, SIZE)
    assert torch.equal(found.logits, torch.from_numpy(logits.astype(np.float16)).float())


def labels_of(folder: Path) -> npt.NDArray[np.uint8] | None:
    """Return the predicted classes of a video of AVSBench-semantic."""
    return read_prediction(folder, clip_of("avss"), SIZE).labels


def test_written_classes_are_read_back(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, 71, (5, *SIZE)).astype(np.uint8)
    labels[3] = 0
    labels[4] = 56  # a class whose colour is a dark grey
    write_masks(tmp_path, clip_of("avss"), labels > 0, labels)
    np.testing.assert_array_equal(labels_of(tmp_path), labels)
    np.testing.assert_array_equal(read(tmp_path, "avss"), labels > 0)


def test_masks_without_the_colours_of_classes_have_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "grey", "v.1/{}.png")
    assert labels_of(tmp_path / "grey") is None
    colour = np.full((5, *SIZE, 3), (128, 0, 0), np.uint8)  # the accordion's
    save(tmp_path / "colour", "v.1/{}.png", colour)
    assert np.array_equal(labels_of(tmp_path / "colour"), np.ones((5, *SIZE)))
    colour[3, 0, 0] = (255, 255, 255)
    save(tmp_path / "white", "v.1/{}.png", colour)
    assert labels_of(tmp_path / "white") is None


def palette_image(mask: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, *colour])
    return image


def sixteen_bit(mask: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16) * 65535)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        lambda mask: Image.fromarray(mask.astype(np.uint8) * 255).convert("P"),
        lambda mask: Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"),
        lambda mask: Image.fromarray(mask.astype(np.uint8) * 255).convert("LA"),
        lambda mask: palette_image(mask, (255, 255, 255)),
        lambda mask: palette_image(mask, (64, 0, 0)),  # a class colour, which is dark as a grey
        sixteen_bit,
    ],
    ids=["1-bit", "grey palette", "RGB", "grey with alpha", "white", "class colour", "16-bit"],
)
def test_binary_masks_of_any_mode_are_read(
    convert: Callable[[npt.NDArray[np.bool_]], Image.Image], tmp_path: Path
) -> None:
    mask = PROBABILITIES[0] > 127
    save(tmp_path, "dog/v.1/v.1_{}.png")
    convert(mask).save(tmp_path / "dog/v.1/v.1_0.png")
    np.testing.assert_array_equal(read(tmp_path)[0], mask)


def test_masks_of_another_size_are_resized(tmp_path: Path) -> None:
    masks = np.zeros((5, 6, 8), np.uint8)
    masks[:, :, 4:] = 255
    large = np.stack([cv2.resize(mask, (32, 24)) for mask in masks])
    save(tmp_path / "large", "dog/v.1/v.1_{}.png", (large > 127).astype(np.uint8) * 255)
    save(tmp_path / "same", "dog/v.1/v.1_{}.png", masks)
    resized, same = (
        read_prediction(tmp_path / name, clip_of("s4"), SIZE) for name in ("large", "same")
    )
    assert (resized.resized, same.resized) == (True, False)
    np.testing.assert_array_equal(resized.logits > 0, same.logits > 0)
    write_logits(tmp_path / "logits", clip_of("s4"), np.where(large > 127, 9.0, -np.inf))
    logits = read_prediction(tmp_path / "logits", clip_of("s4"), SIZE)
    assert logits.resized
    np.testing.assert_array_equal(logits.logits > 0, same.logits > 0)


def remove_frame(folder: Path) -> Path:
    path = folder / "dog/v.1/v.1_3.png"
    path.unlink()
    return path


def truncate_frame(folder: Path) -> Path:
    path = folder / "dog/v.1/v.1_3.png"
    path.write_bytes(path.read_bytes()[:50])
    return path


def remove_folder(folder: Path) -> Path:
    shutil.rmtree(folder / "dog")
    return folder / "test/dog/v.1"


def cut_logits(folder: Path) -> Path:
    write_logits(folder, clip_of("s4"), np.zeros((5, *SIZE), np.float32))
    path = folder / logits_path(clip_of("s4"))
    path.write_bytes(path.read_bytes()[:100])
    return path


def declare_terabytes(folder: Path) -> Path:
    path = folder / logits_path(clip_of("s4"))
    path.parent.mkdir(parents=True)
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (5, 999999, 999999)}"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", npy)
    return path


def drop_logits_of_a_frame(folder: Path) -> Path:
    path = folder / logits_path(clip_of("s4"))
    path.parent.mkdir(parents=True)
    np.savez(path, logits=np.zeros((4, *SIZE), np.float16), seconds=np.arange(4))
    return path


@pytest.mark.parametrize(
    "damage",
    [
        remove_frame,
        truncate_frame,
        remove_folder,
        cut_logits,
        declare_terabytes,
        drop_logits_of_a_frame,
    ],
)
def test_a_missing_or_damaged_file_is_named(damage: Callable[[Path], Path], tmp_path: Path) -> None:
    save(tmp_path, "dog/v.1/v.1_{}.png")
    path = damage(tmp_path)
    with pytest.raises(MediaError, match=f"^{path}: "):
        read(tmp_path)
