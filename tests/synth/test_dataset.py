"""Data sets: AVSBench's layout, identical bytes for the same seed, atomic writing."""

import csv
import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.errors import UsageError
from av2tsam_cli.synth.clips import sounding_mask
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.synth.render import render
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import SynthSubset


@pytest.fixture(scope="module")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("s4")
    write_dataset(out, subset="s4", videos=4, seed=5, split_sizes=(2, 1, 1), workers=1)
    return out / "Single-source"


@pytest.fixture(scope="module")
def ms3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ms3")
    write_dataset(out, subset="ms3", videos=3, seed=5, split_sizes=(1, 1, 1), workers=1)
    return out / "Multi-sources"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_s4_has_avsbenchs_layout(s4: Path) -> None:
    table = rows(s4 / "s4_meta_data.csv")
    assert list(table[0]) == ["name", "start", "category", "split"]
    assert [row["split"] for row in table] == ["train", "train", "val", "test"]
    data = s4 / "s4_data"
    for row in table:
        folder = Path(row["split"]) / row["category"]
        name = row["name"]
        frames = sorted(p.name for p in (data / "visual_frames" / folder / name).iterdir())
        masks = sorted(p.name for p in (data / "gt_masks" / folder / name).iterdir())
        assert frames == [f"{name}_{k}.png" for k in range(1, 6)]
        assert masks == (frames[:1] if row["split"] == "train" else frames)
        assert (data / "audio_wav" / folder / f"{name}.wav").is_file()
        assert (data / "raw_videos" / folder / f"{name}.mp4").is_file()


def test_ms3_has_avsbenchs_layout(ms3: Path) -> None:
    table = rows(ms3 / "ms3_meta_data.csv")
    assert list(table[0]) == ["name", "split"]
    data = ms3 / "ms3_data"
    for row in table:
        name, split = row["name"], row["split"]
        frames = sorted(p.name for p in (data / "visual_frames" / name).iterdir())
        masks = sorted(p.name for p in (data / "gt_masks" / split / name).iterdir())
        assert frames == [f"{name}.mp4_{k}.png" for k in range(1, 6)]
        assert masks == [f"{name}_{k}.png" for k in range(1, 6)]
        assert (data / "audio_wav" / split / f"{name}.wav").is_file()
        assert (data / "raw_videos" / f"{name}.mp4").is_file()


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_pictures_are_224_squares_and_masks_two_valued(
    subset: SynthSubset, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(subset) / f"{subset}_data"
    for path in data.glob("visual_frames/**/*.png"):
        with Image.open(path) as frame:
            assert (frame.size, frame.mode) == ((224, 224), "RGB")
    for path in data.glob("gt_masks/**/*.png"):
        with Image.open(path) as mask:
            assert (mask.size, mask.mode) == ((224, 224), "1" if subset == "s4" else "L")
            assert set(np.unique(np.asarray(mask.convert("L")))) <= {0, 255}


def test_frames_masks_and_sound_are_those_of_the_scene(ms3: Path) -> None:
    scene = sample_scene(scene_rng("test", 5, 0), subset="ms3")
    data, name = ms3 / "ms3_data", "ms3_test_000000"
    for second in range(5):
        rgb, ids = render(scene, second + 15 / 16, 224, 224)
        with Image.open(data / "visual_frames" / name / f"{name}.mp4_{second + 1}.png") as frame:
            np.testing.assert_array_equal(np.asarray(frame), rgb)
        with Image.open(data / "gt_masks/test" / name / f"{name}_{second + 1}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) > 0, sounding_mask(scene, ids, second))
    with wave.open(str(data / "audio_wav/test" / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 80000)
        samples = np.frombuffer(file.readframes(80000), "<i2") / 32767
    np.testing.assert_allclose(samples, soundtrack(scene, 16_000), atol=1 / 32767)


def test_raw_videos_play_for_five_seconds_with_sound(s4: Path) -> None:
    for path in s4.glob("s4_data/raw_videos/**/*.mp4"):
        with av.open(str(path)) as video:
            assert [stream.type for stream in video.streams] == ["video", "audio"]
            times = [frame.time for frame in video.decode(video=0)]
        assert times == pytest.approx(np.arange(40) / 8)


def test_the_manifest_records_how_to_remake_the_data(s4: Path) -> None:
    manifest = json.loads((s4 / "manifest.json").read_text())
    assert manifest["seed"] == 5
    assert manifest["split_sizes"] == {"train": 2, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def off_grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("off_grid")
    sizes = (0, 0, 1)
    write_dataset(out, subset="ms3", videos=1, seed=5, off_grid=True, split_sizes=sizes, workers=1)
    return out / "Multi-sources"


def test_off_the_grid_every_frame_has_a_mask_and_every_sound_its_times(off_grid: Path) -> None:
    scene = sample_scene(scene_rng("test", 5, 0), subset="ms3", off_grid=True)
    data, name = off_grid / "ms3_data", "ms3_test_000000"
    with av.open(str(data / "raw_videos" / f"{name}.mp4")) as video:
        frames = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    paths = sorted((data / "frame_masks" / name).iterdir())
    assert [path.name for path in paths] == [f"{k:06d}.png" for k in range(len(frames))]
    for index in range(0, len(frames), 10):
        ids = render(scene, index / 25, *frames[0].shape[::-1])[1]
        with Image.open(paths[index]) as mask:
            np.testing.assert_array_equal(
                np.asarray(mask) > 0, sounding_mask(scene, ids, index / 25)
            )
    times = [
        (voice.category, float(start), float(stop))
        for voice in scene.voices
        for start, stop in voice.turns
    ]
    table = rows(data / "sounds" / f"{name}.csv")
    assert [(r["name"], float(r["start_s"]), float(r["end_s"])) for r in table] == times
    assert any(time % 1 for _, *turn in times for time in turn)
    manifest = json.loads((off_grid / "manifest.json").read_text())
    assert (manifest["off_grid"], manifest["video_rate"]) == (True, 25)


def test_off_the_grid_pictures_are_those_of_the_same_seed(off_grid: Path, ms3: Path) -> None:
    found, known = contents(off_grid), contents(ms3)
    same = [name for name in found if "visual_frames" in name]
    assert len(same) == 5
    assert all(found[name] == known[name] for name in same)
    assert not any("frame_masks" in name or "sounds" in name for name in known)
    assert {name for name in found if name not in known and "frame_masks" not in name} == {
        "ms3_data/sounds/ms3_test_000000.csv"
    }


def test_the_number_of_workers_does_not_matter(ms3: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, subset="ms3", videos=3, seed=5, split_sizes=(1, 1, 1), workers=2)
    assert contents(tmp_path / "Multi-sources") == contents(ms3)


def test_another_seed_makes_other_videos(ms3: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, subset="ms3", videos=1, seed=6, split_sizes=(1, 0, 0), workers=1)
    name = "ms3_data/raw_videos/ms3_train_000000.mp4"
    assert contents(tmp_path / "Multi-sources")[name] != contents(ms3)[name]


def test_progress_counts_the_videos(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "new" / "folder",
        subset="s4",
        videos=2,
        seed=0,
        workers=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)]


def test_both_subsets_share_a_folder(s4: Path) -> None:
    write_dataset(s4.parent, subset="ms3", videos=1, seed=0, workers=1)
    assert {path.name for path in s4.parent.iterdir()} == {"Single-source", "Multi-sources"}


def test_existing_data_is_kept_without_overwrite(tmp_path: Path) -> None:
    write_dataset(tmp_path, subset="s4", videos=1, seed=0, workers=1)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="`overwrite`"):
        write_dataset(tmp_path, subset="s4", videos=1, seed=1, workers=1)
    assert contents(tmp_path) == before
    write_dataset(tmp_path, subset="s4", videos=1, seed=1, overwrite=True, workers=1)
    assert contents(tmp_path) != before
    assert [path.name for path in tmp_path.iterdir()] == ["Single-source"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        write_dataset(tmp_path, subset="s4", videos=1, seed=0, workers=1)
    with pytest.raises(UsageError, match="is a file"):
        write_dataset(tmp_path / "thesis.txt", subset="s4", videos=1, seed=0, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, -1, 0), (0, 0, 0)])
def test_sizes_must_add_up(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="`split_sizes`"):
        write_dataset(tmp_path / "out", subset="s4", videos=4, seed=0, split_sizes=sizes)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_behind_when_interrupted(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(
            tmp_path / "out", subset="s4", videos=3, seed=0, workers=1, progress=interrupt
        )
    assert not (tmp_path / "out").exists()
