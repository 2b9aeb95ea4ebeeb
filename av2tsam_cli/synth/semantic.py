"""Scenes with several sound sources in the layout of AVSBench-semantic.

A video is one of AVSBench-semantic's group `v1m`: five frames, all of them labelled. Its frames
are JPEGs, and its masks have the colours of the classes (OpenNLPLab/AVSBench,
`avs_scripts/avss/color_dataloader.py`).

AVSBench-semantic has a class for nine of the drawn categories. The others take the place, with its
number and colour, of a class that is never drawn, and `label2idx.json` lists them by their own
name.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from av2tsam_cli.avsbench_format import AVSS_CLASSES, AVSS_COLOURS, FRAME_OFFSET_S, FRAME_PX, Split
from av2tsam_cli.synth.clips import encode_png
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import UInt8Array

GROUP = "v1m"
"""AVSBench-semantic's group of videos with five labelled frames."""
_REPLACED = {
    "emergency-car": "siren",
    "woman": "singer",
    "frying-food": "kettle",
    "keyboard": "phone",
    "duck": "frog",
    "clipper": "bee",
    "handpan": "maraca",
}
"""Drawn categories without a class, by the class whose place they take: the nearest one."""
CLASSES: tuple[str, ...] = tuple(_REPLACED.get(name, name) for name in AVSS_CLASSES)
"""The 71 classes of generated data; the index is the label."""
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)


def class_labels(scene: Scene, ids: UInt8Array, time_s: float) -> UInt8Array:
    """Return the class of each pixel in the frame at a time in seconds, uint8, (H, W).

    Args:
        scene: The scene.
        ids: What `Renderer.frame` returns beside the frame, uint8, (H, W).
        time_s: The time; objects that do not sound at it are background.
    """
    classes = np.zeros(256, np.uint8)
    for position in scene.sounding(time_s):
        classes[position + 1] = CLASSES.index(scene.instances[position].category)
    return classes[ids]


def write_stills(scene: Scene, folder: Path) -> None:
    """Write one frame per second and its mask, as `frames/0.jpg` and `labels_rgb/0.png` etc."""
    frames, labels = folder / "frames", folder / "labels_rgb"
    for each in (frames, labels):
        each.mkdir(parents=True)
    renderer = Renderer(scene, FRAME_PX, FRAME_PX)
    colours = np.array(AVSS_COLOURS, np.uint8)
    for second in range(scene.duration_s):
        time_s = second + FRAME_OFFSET_S
        rgb, ids = renderer.frame(time_s)
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), _JPEG)
        (frames / f"{second}.jpg").write_bytes(jpeg.data)
        mask = colours[class_labels(scene, ids, time_s)]
        (labels / f"{second}.png").write_bytes(encode_png(mask))


def write_tables(root: Path, videos: Iterable[tuple[Split, str, str]]) -> None:
    """Write `metadata.csv` and `label2idx.json`.

    In the latter, numbers start at 1, as other repositories copy it from AVSBench-semantic;
    AVSBench's own scripts use only its order.

    Args:
        root: Folder of the subset.
        videos: Split, name and classes that can be heard of each video, joined by `_`.
    """
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("vid", "uid", "s_min", "s_sec", "a_obj", "label", "split"))
        table.writerows((name, name, 0, 0, heard, GROUP, split) for split, name, heard in videos)
    numbers = {name: label + 1 for label, name in enumerate(CLASSES)}
    (root / "label2idx.json").write_text(json.dumps(numbers, indent=2) + "\n")
