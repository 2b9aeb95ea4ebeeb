"""Reading AVSBench as its own loaders do, and rejecting invalid data."""

import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.avsbench_format import AVSS_CLASSES, Split, Subset
from av2tsam_cli.data.avsbench import Clip, find_root, find_subsets, open_split, read_classes
from av2tsam_cli.data.clips import (
    read_clip_frames,
    read_clip_labels,
    read_clip_masks,
    read_clip_windows,
)
from av2tsam_cli.errors import MediaError, UsageError

RATE_HZ = 16_000


def first(root: Path, split: Split = "train", subset: Subset = "s4") -> Clip:
    return open_split(root, subset, split)[0]


def test_s4_labels_every_second_but_only_the_first_in_train(generated: Path) -> None:
    assert [len(open_split(generated, "s4", s)) for s in ("train", "val", "test")] == [2, 1, 1]
    train, val = first(generated), first(generated, "val")
    assert (train.seconds, train.labelled) == (5, (0,))
    assert (val.seconds, val.labelled) == (5, (0, 1, 2, 3, 4))
    assert train.category in {path.name for path in generated.glob("*/s4_data/*/train/*")}
    assert read_clip_frames(train, range(5)).shape == (5, 224, 224, 3)
    assert read_clip_masks(val, val.labelled).shape == (5, 224, 224)
    with pytest.raises(ValueError, match="not labelled"):
        read_clip_masks(train, [1])


def test_ms3_labels_every_second_and_has_no_categories(generated: Path) -> None:
    clip = first(generated, "train", "ms3")
    assert (clip.category, clip.labelled) == (None, (0, 1, 2, 3, 4))
    frame = np.asarray(Image.open(generated.rglob(f"{clip.name}.mp4_3.png").__next__()))
    mask = np.asarray(Image.open(generated.rglob(f"{clip.name}_3.png").__next__()))
    assert np.array_equal(read_clip_frames(clip, [2])[0], frame)
    assert np.array_equal(read_clip_masks(clip, [2])[0], mask > 0)


def test_avsbench_semantic_is_read_as_one_binary_mask(avss: Path) -> None:
    found = {c.name: c for s in ("train", "val", "test") for c in open_split(avss, "avss", s)}
    labelled = {name: len(clip.labelled) for name, clip in found.items()}
    assert labelled == {"one": 1, "two": 5, "three": 5, "four": 10}
    assert found["four"].category == "dog_man"
    mask = read_clip_masks(found["four"], [9])[0]
    assert mask[:9].all()
    assert not mask[9:].any()
    assert abs(float(read_clip_frames(found["four"], [9]).mean()) - 90) < 3
    assert read_clip_windows(found["four"], [9], 8_000).shape == (1, 8_000)


def test_semantic_labels_are_read_if_there_are_no_rgb_labels(avss: Path) -> None:
    folder = avss / "AVSBench_semantic" / "v1m" / "three"
    shutil.rmtree(folder / "labels_rgb")
    (folder / "labels_semantic").mkdir()
    Image.fromarray(np.eye(12, 16, dtype=np.uint8) * 70).save(folder / "labels_semantic" / "0.png")
    assert read_clip_masks(first(avss, "val", "avss"), [0]).sum() == 12


def test_classes_are_read_by_their_colours(avss: Path) -> None:
    clip = first(avss, "val", "avss")
    labels = read_clip_labels(clip, [0, 4])
    assert labels.shape == (2, 12, 16)
    assert [AVSS_CLASSES[label] for label in labels[1, 5:7, 0]] == ["handpan", "accordion"]
    assert (labels > 0).tolist() == read_clip_masks(clip, [0, 4]).tolist()
    path = clip.masks[0]
    assert path is not None
    Image.fromarray(np.full((12, 16, 3), 255, np.uint8)).save(path)  # as in AVSBench, background
    assert not read_clip_labels(clip, [0]).any()


def test_the_names_of_classes_may_come_with_the_data(avss: Path) -> None:
    assert read_classes(avss) == AVSS_CLASSES
    path = avss / "AVSBench_semantic" / "label2idx.json"
    names = ["background", "kettle", *AVSS_CLASSES[2:]]
    path.write_text(json.dumps({name: k for k, name in reversed([*enumerate(names, start=1)])}))
    assert read_classes(avss)[:3] == ("background", "kettle", "airplane")
    for content in ("[1, 2", '{"dog": 0}', '["dog"]', "3"):
        path.write_text(content)
        with pytest.raises(MediaError, match=r"label2idx\.json: .*copy it again"):
            read_classes(avss)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_nonzero_mask_values_are_foreground(data: Path, mode: str) -> None:
    clip = first(data)
    expected = np.zeros((224, 224), bool)
    expected[50:70, 100:150] = True
    least = {"1": 255, "I;16": 300}.get(mode, 1)  # the smallest value above black
    levels = expected.astype(np.uint16 if mode == "I;16" else np.uint8) * least
    image = Image.fromarray(levels)
    if mode == "P":
        image.putpalette(bytes(3 * 256))  # every index is shown black
    elif mode != "I;16":
        image = image.convert(mode)
    assert clip.masks[0] is not None
    image.save(clip.masks[0])
    assert np.array_equal(read_clip_masks(clip, [0])[0], expected)


def test_windows_are_the_seconds_of_the_wav(generated: Path) -> None:
    clip = first(generated)
    with wave.open(str(clip.sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    windows = read_clip_windows(clip, range(5), RATE_HZ)
    assert np.allclose(windows.ravel(), samples, atol=1e-7)
    assert np.array_equal(read_clip_windows(clip, [3, 1], RATE_HZ), windows[[3, 1]])


def test_sound_is_mono_unless_prepared_like_the_reference(
    data: Path, write_wav: Callable[..., Path]
) -> None:
    clip = first(data)
    write_wav(clip.sound, [np.full(5 * 44_100, 0.5), np.full(5 * 44_100, -0.25)], 44_100)
    assert np.allclose(read_clip_windows(clip, [2], 44_100), 0.125)
    reference = read_clip_windows(clip, [2], 44_100, reference=True)
    assert reference.shape == (1, 88_200)
    assert np.allclose(reference[0, :44_100], 0.5)
    assert np.allclose(reference[0, 44_100:], -0.25)


def test_slightly_short_sound_is_padded_with_silence(
    data: Path, write_wav: Callable[..., Path]
) -> None:
    clip = first(data)
    write_wav(clip.sound, [np.full(round(4.25 * RATE_HZ), 0.5)])
    last = read_clip_windows(clip, [4], RATE_HZ)[0]
    assert np.allclose(last[:4_000], 0.5)
    assert not last[4_000:].any()
    write_wav(clip.sound, [np.full(4 * RATE_HZ, 0.5)])
    assert not read_clip_windows(clip, [4], RATE_HZ).any()


@pytest.mark.parametrize("reference", [False, True])
def test_much_too_short_sound_is_padded_as_in_avsbench(
    data: Path, write_wav: Callable[..., Path], reference: bool
) -> None:
    clip = first(data)
    write_wav(clip.sound, [np.full(round(1.5 * RATE_HZ), 0.5)])
    windows = read_clip_windows(clip, range(5), RATE_HZ, reference=reference)
    assert windows.shape == (5, RATE_HZ)
    assert np.allclose(windows.ravel()[: round(1.5 * RATE_HZ)], 0.5)
    assert not windows.ravel()[round(1.5 * RATE_HZ) :].any()


def test_an_empty_wav_is_an_error(data: Path, write_wav: Callable[..., Path]) -> None:
    clip = first(data)
    write_wav(clip.sound, [[]])
    with pytest.raises(MediaError, match="truncated, it contains 0 of 0 bytes") as caught:
        read_clip_windows(clip, [0], RATE_HZ)
    assert str(clip.sound) in str(caught.value)


def test_the_error_names_a_truncated_or_invalid_wav(data: Path) -> None:
    clip = first(data)
    content = clip.sound.read_bytes()
    for damaged in (content[:-100], content[:30], content[:5], b"ID3" + content):
        clip.sound.write_bytes(damaged)
        with pytest.raises(MediaError, match=r"truncated|not a WAV file") as caught:
            read_clip_windows(clip, [0], RATE_HZ)
        assert str(clip.sound) in str(caught.value)


def test_the_error_names_a_damaged_frame(data: Path, damage: Callable[[Path], None]) -> None:
    clip = first(data)
    damage(clip.frames[2])
    assert read_clip_frames(clip, [0, 1, 3, 4]).shape[0] == 4
    with pytest.raises(MediaError) as caught:
        read_clip_frames(clip, range(5))
    assert str(caught.value).startswith(f"{clip.frames[2]}: ")
    assert str(caught.value).count(clip.frames[2].name) == 1


def test_a_mask_must_have_the_size_of_its_frame(data: Path) -> None:
    clip = first(data)
    assert clip.masks[0] is not None
    Image.new("1", (112, 224)).save(clip.masks[0])
    with pytest.raises(
        MediaError, match=r"_1\.png: is 112 x 224 pixels but its frame is 224 x 224"
    ):
        read_clip_masks(clip, [0])


def test_raw_videos_replace_missing_frames_and_sound(
    data: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    name = first(data, "train", "ms3").name
    base = data / "Multi-sources" / "ms3_data"
    video = make_clip("raw.mp4", seconds=5, rate=16, sounds=[{"samples": tone(5.0)}])
    shutil.copy(video, base / "raw_videos" / f"{name}.mp4")
    shutil.rmtree(base / "visual_frames")
    shutil.rmtree(base / "audio_wav")
    clip = first(data, "train", "ms3")
    frames = read_clip_frames(clip, [0, 4, 2])
    assert frames.shape == (3, 224, 224, 3)
    # At 16 frames per second, the last of each second is used; frame k has grey 40 + 6 (k % 30).
    shown = [40 + 6 * ((16 * second + 15) % 30) for second in (0, 4, 2)]
    assert np.allclose(frames[:, 150:, 150:].mean((1, 2, 3)), shown, atol=3)
    windows = read_clip_windows(clip, range(5), RATE_HZ)
    assert windows.std(axis=1) == pytest.approx([0.5 / 2**0.5] * 5, abs=0.02)


def test_a_slightly_short_raw_video_repeats_its_last_frame(
    data: Path, make_clip: Callable[..., Path]
) -> None:
    shutil.rmtree(data / "Multi-sources" / "ms3_data" / "visual_frames")
    clip = first(data, "train", "ms3")
    assert clip.video is not None
    shutil.copy(make_clip("early.mp4", seconds=4.5, rate=16), clip.video)
    frames = read_clip_frames(clip, [4])
    assert np.allclose(frames[0, 150:, 150:].mean(), 40 + 6 * (71 % 30), atol=3)
    shutil.copy(make_clip("earlier.mp4", seconds=3, rate=16), clip.video)
    with pytest.raises(MediaError, match=r"its last frame is at 2\.94 s") as caught:
        read_clip_frames(clip, [4])
    assert str(clip.video) in str(caught.value)


def test_options_and_environment_select_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AVSBENCH_ROOT", raising=False)
    for name in ("avsbench_data", "named", "given"):
        (tmp_path / name).mkdir()
    assert find_root("avsbench") == Path("avsbench_data")
    monkeypatch.setenv("AVSBENCH_ROOT", str(tmp_path / "named"))
    assert find_root("avsbench") == tmp_path / "named"
    assert find_root("avsbench", tmp_path / "given") == tmp_path / "given"
    assert find_root("given") == Path("given")
    with pytest.raises(UsageError, match="`data_root` can be used only with `data` avsbench"):
        find_root("given", tmp_path / "named")
    monkeypatch.setenv("AVSBENCH_ROOT", "gone")
    with pytest.raises(UsageError, match=r"\$AVSBENCH_ROOT \(gone\)"):
        find_root("avsbench")
    with pytest.raises(UsageError, match="nowhere: folder not found"):
        find_root("nowhere")


@pytest.mark.parametrize("level", [".", "Single-source", "Single-source/s4_data"])
def test_the_path_may_be_a_subset_or_its_data_folder(generated: Path, level: str) -> None:
    clips = open_split(generated / level, "s4", "train")
    assert [clip.name for clip in clips] == ["s4_train_000000", "s4_train_000001"]
    assert "s4" in find_subsets(generated / level)
    assert read_clip_frames(clips[0], [0]).any()


def test_the_error_for_a_missing_subset_lists_the_others(data: Path) -> None:
    with pytest.raises(MediaError, match=r"metadata\.csv found, only S4 and MS3;"):
        open_split(data, "avss", "train")
    (data / "Single-source" / "s4_meta_data.csv").rename(
        data / "Single-source" / "._s4_meta_data.csv"
    )
    with pytest.raises(MediaError, match=r"s4_meta_data\.csv found, only MS3; .* `subset`"):
        open_split(data, "s4", "train")


def test_macos_shadow_files_are_ignored(data: Path) -> None:
    clip = first(data)
    for path in (clip.sound, clip.frames[0], data / "Single-source" / "s4_meta_data.csv"):
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    assert first(data) == clip
    assert read_clip_frames(clip, range(5)).shape[0] == 5


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("name,start,category", "no column split, only: name, start, category"),
        ("", "no column category, split, only: none"),
        ("name,start,category,split\na,0,dog,trian", "line 2: unknown split 'trian'"),
        (
            "name,start,category,split\na,0,dog,train\n../b,0,dog,train",
            r"line 3: '\.\./b' is not a valid name",
        ),
        (
            "name,start,category,split\n/etc/passwd,0,dog,train",
            "line 2: '/etc/passwd' is not a valid name",
        ),
        ("name,start,category,split\na,0,..,train", r"line 2: '\.\.' is not a valid name"),
        ("name,start,category,split\na\\b,0,dog,train", "is not a valid name of a video"),
        ("name,start,category,split\n,0,dog,train", "line 2: '' is not a valid name"),
        ("name,start,category,split\na,0,dog,test", "no videos for the split train"),
        ("name,start,category,split", "lists no videos; use the CSV that comes with the data"),
        (
            f"name,start,category,split\n{'a' * 5_000},0,dog,train",
            r"line 2: the files of this video cannot be read \(File name too long\)",
        ),
        ("name,start,category,split\na,0,dog", "unknown split ''"),
        ('name,start,category,split\n"a,0,dog,train', "cannot be read as CSV"),
    ],
)
def test_an_invalid_csv_is_rejected(data: Path, lines: str, complaint: str) -> None:
    path = data / "Single-source" / "s4_meta_data.csv"
    path.write_text(lines)
    with pytest.raises(MediaError, match=complaint) as caught:
        open_split(data, "s4", "train")
    assert str(caught.value).startswith(str(path))


def test_csv_variants_are_read(data: Path) -> None:
    path = data / "Single-source" / "s4_meta_data.csv"
    names = [clip.name for clip in open_split(data, "s4", "train")]
    for content in (
        path.read_bytes().replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + path.read_bytes(),
        path.read_bytes().replace(b"name", b"video_id", 1),
    ):
        path.write_bytes(content)
        assert [clip.name for clip in open_split(data, "s4", "train")] == names
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(MediaError, match="cannot be read as CSV"):
        open_split(data, "s4", "train")


def test_an_unknown_split_is_a_usage_error(generated: Path) -> None:
    with pytest.raises(UsageError, match="unknown split 'dev'; use train, val or test"):
        open_split(generated, "s4", "dev")  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_folders_and_files_may_be_links(data: Path, tmp_path: Path, level: int) -> None:
    clip = first(data)
    for path in (clip.frames[0], clip.masks[0], clip.sound):
        assert path is not None
        link = (path, *path.parents)[level]
        if not link.is_symlink():
            shutil.move(link, tmp_path / f"moved{link.name}")
            link.symlink_to(tmp_path / f"moved{link.name}")
    assert first(data) == clip
    assert read_clip_frames(clip, range(5)).shape[0] == 5
    assert read_clip_masks(clip, [0]).shape[0] == 1
    assert read_clip_windows(clip, [0], RATE_HZ).shape == (1, RATE_HZ)


def test_a_dangling_link_is_a_missing_file_and_not_replaced(data: Path) -> None:
    clip = first(data)
    clip.sound.unlink()
    clip.sound.symlink_to("../.git/annex/objects/a.wav")
    shutil.rmtree(clip.frames[0].parent)
    clip.frames[0].parent.symlink_to("gone")
    assert first(data) == clip
    fetch = r"which does not exist; fetch it, for example with 'git annex get' or 'dvc pull'"
    with pytest.raises(MediaError, match=rf"annex/objects/a\.wav, {fetch}") as caught:
        read_clip_windows(clip, [0], RATE_HZ)
    assert str(caught.value).startswith(f"{clip.sound}: missing, ")
    with pytest.raises(MediaError, match=rf"{clip.name} links to gone, {fetch}"):
        read_clip_frames(clip, [0])
