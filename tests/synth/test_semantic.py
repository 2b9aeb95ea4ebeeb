"""Generated data in AVSBench-semantic's layout: classes, and the same scenes as MS3."""

from pathlib import Path

import numpy as np
import pytest

from av2tsam_cli.avsbench_format import AVSS_CLASSES
from av2tsam_cli.data.avsbench import open_split, open_subset, read_classes
from av2tsam_cli.data.clips import read_clip_frames, read_clip_labels, read_clip_masks
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.synth.scenes import NAMES, sample_scene, scene_rng
from av2tsam_cli.synth.semantic import CLASSES
from av2tsam_cli.words.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MS3 and AVSBench-semantic with the same seed."""
    out = tmp_path_factory.mktemp("data")
    for subset in ("ms3", "avss"):
        write_dataset(out, subset=subset, videos=2, seed=5, split_sizes=(1, 0, 1), workers=1)
    return out


def test_masks_are_those_of_ms3_with_the_classes_of_what_sounds(data: Path) -> None:
    pairs = zip(open_subset(data, "avss"), open_subset(data, "ms3"), strict=True)
    classes = read_classes(data)
    for clip, same in pairs:
        assert clip.split == same.split
        assert clip.labelled == (0, 1, 2, 3, 4)
        labels = read_clip_labels(clip, clip.labelled)
        masks = read_clip_masks(same, same.labelled)
        np.testing.assert_array_equal(labels > 0, masks)
        np.testing.assert_array_equal(read_clip_masks(clip, clip.labelled), masks)
        scene = sample_scene(scene_rng(clip.split, 5, 0), subset="ms3")
        for second, frame in enumerate(labels):
            sounding = {scene.instances[k].category for k in scene.sounding(second)}
            assert {classes[label] for label in np.unique(frame)} - {"background"} <= sounding
        assert set(str(clip.category).split("_")) == {v.category for v in scene.voices}


def test_files_are_those_of_avsbench_semantic(data: Path) -> None:
    folder = data / "AVSBench_semantic" / "v1m" / "avss_test_000000"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    stills = [(f"frames/{k}.jpg", f"labels_rgb/{k}.png") for k in range(5)]
    assert found == {"audio.wav", *(name for pair in stills for name in pair)}
    clip = open_split(data, "avss", "test")[0]
    assert read_clip_frames(clip, clip.labelled).shape == (5, 224, 224, 3)


def test_off_the_grid_each_video_has_the_times_of_its_sounds(tmp_path: Path) -> None:
    sizes = (1, 0, 0)
    write_dataset(
        tmp_path, subset="avss", videos=1, seed=5, off_grid=True, split_sizes=sizes, workers=1
    )
    scene = sample_scene(scene_rng("train", 5, 0), subset="ms3", off_grid=True)
    table = tmp_path / "AVSBench_semantic" / "v1m" / "avss_train_000000" / "sounds.csv"
    assert len(table.read_text().splitlines()) == 1 + sum(len(v.turns) for v in scene.voices)


def test_each_drawn_category_has_a_class_of_its_own(data: Path) -> None:
    classes = read_classes(data)
    assert classes == CLASSES
    assert set(NAMES) <= set(classes)
    assert len(set(classes)) == len(AVSS_CLASSES)
    vocabulary = load_vocabulary()
    for name in NAMES:  # a class of AVSBench-semantic keeps its number and name
        known = vocabulary.find(name).avss
        assert known in {"", name}
        assert known == "" or classes.index(name) == AVSS_CLASSES.index(known)
