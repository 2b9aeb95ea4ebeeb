import csv
import gc
import json
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

import av2tsam
from av2tsam_cli.errors import Av2tsamError, MediaError, UsageError
from av2tsam_cli.inference import loading
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.model.sam import best_mask
from av2tsam_cli.pipeline import (
    iter_masks,
    segment_frames,
    segment_video,
    time_estimate,
)
from av2tsam_cli.plan import plan_video
from av2tsam_cli.segment_options import Format, SegmentOptions
from av2tsam_cli.values import Frame

from .conftest import grey_step

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
BoolArray = npt.NDArray[np.bool_]
SAMPLES = Path(__file__).parents[1] / "sample_media"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model, device="cpu", precision="fp32")


def masks_of(clip: Path, model: LoadedModel, **options: Any) -> list[BoolArray]:
    """The masks as the network computes them, unless `refine` is set."""
    return [each.mask for each in iter_masks(clip, model=model, **{"refine": False, **options})]


def one_by_one(clip: Path, model: LoadedModel) -> list[BoolArray]:
    """The masks as in the paper: frame by frame, each with its second of audio."""
    network, info = model.network, probe(clip)
    windows = {w.index: w for w in read_windows(info, rate_hz=network.clap.config.rate_hz)}
    return [_one(network, frame, windows[int(frame.time_s)].samples) for frame in read_frames(info)]


def _one(network: Any, frame: Frame, samples: npt.NDArray[np.float32]) -> BoolArray:
    pixels = torch.from_numpy(frame.rgb.copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        heard = network.embed_windows(torch.from_numpy(samples)[None])
        prediction = network(*network.prepare(pixels), network.embed_frames(pixels), heard)
    enlarged = network.text_sam.resize(best_mask(prediction), frame.rgb.shape[:2])
    mask: BoolArray = (torch.sigmoid(enlarged) > 0.5)[0, 0].numpy()
    return mask


def test_masks_equal_those_of_the_network_run_frame_by_frame(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(seconds=1.4, rate=10, sounds=[{"samples": tone(1.4)}])
    expected = one_by_one(clip, model)
    assert 0.05 < np.mean(expected) < 0.95
    for batch_size in (1, 3, 64):
        found = masks_of(clip, model, batch_size=batch_size, smooth=False)
        differing = [np.mean(a != b) for a, b in zip(found, expected, strict=True)]
        assert max(differing) < 0.01  # batching changes the last bits of a float


def test_only_seconds_with_audio_have_masks(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    second = {"samples": tone(1.0), "start_s": 1.0, "codec": "pcm_s16le"}
    clip = make_clip("clip.mkv", seconds=3, rate=8, sounds=[second])
    areas = [mask.mean() for mask in masks_of(clip, model)]
    assert len(areas) == 24
    assert all(areas[8:16])
    assert not any(areas[:8] + areas[16:])


def test_seconds_below_the_silence_level_have_empty_masks(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    faint = {"samples": tone(1.0) * 0.002, "codec": "pcm_s16le"}  # -63 dBFS
    clip = make_clip("clip.mkv", rate=5, sounds=[faint])
    assert not np.any(masks_of(clip, model))
    assert np.all([mask.any() for mask in masks_of(clip, model, silence_dbfs=-70.0)])
    assert np.all([mask.any() for mask in masks_of(clip, model, silence_dbfs=None)])


def test_a_video_without_audio_has_empty_masks(make_clip: MakeClip, model: LoadedModel) -> None:
    masks = masks_of(make_clip(rate=5), model)
    assert len(masks) == 5
    assert not np.any(masks)


def test_a_text_prompt_works_with_and_without_audio(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    mute = masks_of(make_clip("mute.mp4", rate=5), model, text="the dog")
    assert len(mute) == 5
    assert all(0.05 < mask.mean() < 0.95 for mask in mute)
    sounding = make_clip("sounding.mp4", rate=5, sounds=[{"samples": tone(1.0)}])
    assert np.array_equal(mute, masks_of(sounding, model, text="the dog"))
    assert not np.array_equal(mute, masks_of(sounding, model))


def test_nano_segments_the_dog_from_a_text_prompt(tmp_path: Path) -> None:
    """Of sample_media's exact masks, those of seconds 0 and 1 are the dog and nothing else."""
    nano = load_model("nano", device="cpu")
    sample = SAMPLES / "duet.mp4"
    segment_video(
        sample, tmp_path, model=nano, format="masks", text="the dog", fps=Fraction(5), end=8.0
    )
    found, true = (
        np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0 for path in sorted(paths)])
        for paths in ((tmp_path / "duet").glob("*.png"), (SAMPLES / "duet_masks").iterdir())
    )
    # A key frame every fifth: those in between are interpolated.
    assert iou(found[:50:5], true[:50:5]) > 0.8
    # The trumpet alone sounds in seconds 2 and 3, and nothing in 6 and 7; the dog is there.
    assert iou(found[50:100], true[50:100]) < 0.05
    assert found[150:].any((1, 2)).all()


def iou(found: BoolArray, true: BoolArray) -> float:
    """Mean over frames (T, H, W)."""
    return float(np.mean((found & true).sum((1, 2)) / (found | true).sum((1, 2))))


def test_masks_at_a_lower_rate_equal_the_computed_ones_and_fill_the_others(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(seconds=2, rate=10, sounds=[{"samples": tone(2.0)}])
    every = masks_of(clip, model, smooth=False)
    thinned = masks_of(clip, model, fps=Fraction(5), smooth=False)
    assert len(thinned) == len(every)
    assert max(np.mean(thinned[k] != every[k]) for k in range(0, 20, 2)) < 0.01
    assert all(mask.any() for mask in thinned)


def test_masks_are_smoothed_over_time_unless_that_is_switched_off(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    def shimmering(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        noise = np.random.default_rng(index).integers(0, 40, (height, width, 3), dtype=np.uint8)
        return grey_step(8, width, height) + noise

    sounds = [{"samples": tone(1.0)}]
    clip = make_clip(rate=25, picture=shimmering, sounds=sounds)
    smooth, rough = (masks_of(clip, model, smooth=on) for on in (True, False))
    changes = [np.mean(a ^ b) for a, b in pairwise(rough)]
    assert 0 < np.mean([np.mean(a ^ b) for a, b in pairwise(smooth)]) < 0.8 * np.mean(changes)


def moving(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A bright square that stands still for a second and then jumps from place to place."""
    rgb = np.full((height, width, 3), 60, np.uint8)
    left = 10 + 12 * max(0, index - 9)
    rgb[10:30, left : left + 20] = 220
    return rgb


def test_auto_computes_masks_where_the_picture_or_the_sound_changes(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(
        "clip.mkv",
        seconds=2,
        rate=10,
        size=(128, 64),
        picture=moving,
        codec="ffv1",
        sounds=[{"samples": tone(2.0), "codec": "pcm_s16le"}],
    )
    common = {"model": model, "reuse": None, "smooth": False}
    every = list(iter_masks(clip, fps="all", batch_size=1, **common))
    found = list(iter_masks(clip, fps="auto", **common))
    assert [each.frame.index for each in found] == list(range(20))
    computed = [each.frame.index for each in found if each.origin == "computed"]
    assert computed[:2] == [0, 10]  # nothing changes in the first second
    assert len(computed) > 6
    for index in computed:
        np.testing.assert_array_equal(found[index].probability, every[index].probability)
    assert {each.origin for each in found[1:10]} == {"interpolated"}
    for one, other in zip(found[:10], every[:10], strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-3)
    reused = list(iter_masks(clip, model=model, fps="auto"))
    assert {each.origin for each in reused[1:10]} == {"reused"}
    result = segment_video(clip, tmp_path / "o.mp4", model=model, fps="auto", reuse=None)
    assert (result.fps, result.frames_computed) == ("auto", len(computed))


def test_auto_is_the_default_of_full_size_models_on_cpus_and_is_announced(
    make_clip: MakeClip,
    tone: Tone,
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = make_clip(rate=5, sounds=[{"samples": tone(1.0)}])
    light = segment_video(clip, tmp_path / "light.mp4", model=model)
    assert light.fps == "all"
    assert not caplog.messages
    monkeypatch.setattr(loading, "LIGHT_PARAMETERS", 1)
    full_size = replace(model)  # which is counted again
    large = segment_video(clip, tmp_path / "large.mp4", model=full_size)
    assert large.fps == "auto"
    assert large.frames_computed < light.frames_computed
    (line,) = caplog.messages
    assert line.startswith(f"{clip}: {model.name} on cpu: ")
    assert line.endswith("masks that optical flow can predict are not computed (`fps` auto)")
    caplog.clear()
    every = segment_video(clip, tmp_path / "every.mp4", model=full_size, fps="all")
    assert (every.fps, every.frames_computed) == ("all", light.frames_computed)
    assert not caplog.messages


def test_masks_are_empty_if_no_probability_reaches_the_threshold(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(rate=5, sounds=[{"samples": tone(1.0)}])
    assert not np.any(masks_of(clip, model, threshold=0.999))
    assert np.all(masks_of(clip, model, threshold=0.001))


def test_a_range_of_a_video_has_the_masks_of_that_range(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(seconds=3, rate=10, sounds=[{"samples": tone(3.0)}])
    whole = masks_of(clip, model, smooth=False)
    part = masks_of(clip, model, start=1.5, end=2.5, smooth=False)
    assert len(part) == 10
    assert max(np.mean(a != b) for a, b in zip(part, whole[15:25], strict=True)) < 0.01


def test_repeated_frames_have_the_masks_that_the_network_would_compute(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    """Eleven images, one of which continues into the next second, with other audio."""

    def doubled(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        return grey_step((index + 1) // 2, width, height)

    clip = make_clip(
        "clip.mkv",
        seconds=2,
        rate=10,
        picture=doubled,
        codec="ffv1",
        sounds=[{"samples": tone(2.0), "codec": "pcm_s16le"}],
    )
    every = masks_of(clip, model, batch_size=1, reuse=None, smooth=False)
    repeated = masks_of(clip, model, batch_size=1, reuse=0.0, smooth=False)
    assert np.array_equal(every, repeated)
    assert not np.array_equal(every[2], every[4])
    result = segment_video(clip, tmp_path / "o.mp4", model=model, reuse=0.0)
    assert (result.frames, result.frames_computed) == (20, 12)


def test_the_result_describes_the_output(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    sound = {"samples": tone(1.0)}
    clip = make_clip(seconds=2, rate=10, sounds=[sound])
    seen: list[int] = []
    result = av2tsam.segment_video(
        clip, tmp_path / "o.mp4", model=model, progress=seen.append, fps=Fraction(2)
    )
    assert result.outputs == (tmp_path / "o.mp4",)
    assert result.frames == 20
    assert result.frames_computed in {2, 3}
    assert result.frames_with_mask in {10, 11}  # AAC may ring on for a moment after the sound
    assert result.duration_s == pytest.approx(2.0)
    assert result.model == str(model.name)
    assert (result.device, result.precision) == ("cpu", "fp32")
    assert 0.0 < result.mean_area < 1.0
    assert seen == list(range(1, 21))
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert len(list(video.decode(video=0))) == 20


def test_mask_pngs_equal_the_masks_of_iter_masks(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(rate=6, size=(50, 38), sounds=[{"samples": tone(1.0)}])
    segment_video(clip, tmp_path / "out", model=model, format="masks")
    files = sorted((tmp_path / "out" / "clip").glob("*.png"))
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(6)]
    for file, mask in zip(files, masks_of(clip, model, refine=True), strict=True):
        assert np.array_equal(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), mask * np.uint8(255))


def test_the_number_of_frames_in_memory_depends_on_the_batch_size_only(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(seconds=8, rate=25, sounds=[{"samples": tone(8.0)}])
    alive: list[int] = []

    def frames() -> int:
        return sum(type(thing) is Frame for thing in gc.get_objects())

    def count(done: int) -> None:
        if done % 50 == 0:
            alive.append(frames() - earlier)

    gc.collect()
    earlier = frames()  # those in the tracebacks of earlier tests
    segment_video(clip, tmp_path / "o.mp4", model=model, batch_size=2, progress=count)
    assert len(alive) == 4
    assert max(alive) <= 16  # decode: 2 + 2, network: 2 + 2, and what is in somebody's hands


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_many_videos_leave_no_open_file_and_no_thread(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(rate=5, sounds=[{"samples": tone(1.0)}])

    def used() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    segment_video(clip, tmp_path / "first.mp4", model=model)
    gc.collect()
    before = used()
    for index in range(12):
        segment_video(clip, tmp_path / f"{index}{('.mp4', '.webm')[index % 2]}", model=model)
    assert used() == before


@pytest.mark.parametrize("out", ["new/o.mp4", "new/o"])
def test_a_failure_leaves_nothing_behind(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path, out: str
) -> None:
    clip = make_clip("clip.mp4", seconds=2, sounds=[{"samples": tone(2.0)}])
    kind: Format = "video" if out.endswith("mp4") else "masks"

    def fail(done: int) -> None:
        if done == 20:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        segment_video(clip, tmp_path / out, model=model, format=kind, progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_error_in_the_network_reaches_the_caller_and_leaves_nothing_behind(
    make_clip: MakeClip, tone: Tone, tiny_model: Path, tmp_path: Path
) -> None:
    clip = make_clip("clip.mp4", sounds=[{"samples": tone(1.0)}])
    broken = load_model(tiny_model, device="cpu")
    del broken.network.text_sam.mask_decoder
    with pytest.raises(AttributeError, match="mask_decoder"):
        segment_video(clip, tmp_path / "o.mp4", model=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_range_without_frames_is_an_error(
    make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(rate=2)
    with pytest.raises(Av2tsamError, match="no frame between"):
        segment_video(clip, tmp_path / "o", model=model, format="masks", start=0.1, end=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_start_after_the_end_of_the_video_is_an_error_before_any_work(
    make_clip: MakeClip,
) -> None:
    clip = make_clip(seconds=1)
    with pytest.raises(UsageError, match=r"`start` \(5 s\) is after its end \(1 s\)"):
        plan_video(clip, clip.parent / "o.mp4", SegmentOptions(start=5.0))


def test_audio_can_be_required(make_clip: MakeClip) -> None:
    clip = make_clip()
    with pytest.raises(MediaError, match="has no audio"):
        plan_video(clip, clip.parent / "o.mp4", SegmentOptions(require_audio=True))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"start": -1.0}, "`start`"),
        ({"start": 3.0, "end": 3.0}, "`end` must be later than `start`"),
        ({"fps": Fraction(0)}, "`fps`"),
        ({"fps": "often"}, "`fps` must be a number, auto or all, not 'often'"),
        ({"threshold": 1.0}, "`threshold`"),
        ({"reuse": 256.0}, "`reuse`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"text": "  "}, "`text` is empty"),
        ({"text": "the dog", "require_audio": True}, "`require_audio` has no effect"),
        ({"text": "the dog", "silence_dbfs": -40.0}, "`silence_dbfs` has no effect"),
    ],
)
def test_invalid_options_are_errors(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        SegmentOptions(**options)


def test_the_expected_number_of_frames_follows_from_the_header(make_clip: MakeClip) -> None:
    clip = make_clip(seconds=4, rate=25)
    options = SegmentOptions(start=1.0, end=2.0)
    assert plan_video(clip, clip.parent / "o.mp4", SegmentOptions()).frames == 100
    assert plan_video(clip, clip.parent / "o.mp4", options).frames == 25


def test_the_time_of_a_video_is_estimated() -> None:
    assert time_estimate(1500, Fraction(25), 3.0, skips=False) == (
        "3.0 s per mask, so about 75 min; with `fps` auto, 3 min to 75 min"
    )
    assert time_estimate(15_000, Fraction(30000, 1001), 3.0, skips=True) == (
        "3.0 s per mask, so 25 min to 12 h; "
        "masks that optical flow can predict are not computed (`fps` auto)"
    )
    assert time_estimate(25, Fraction(25), 1.0, skips=True).startswith("1.0 s per mask, so 1 min; ")
    assert time_estimate(None, None, 1.0, skips=True).startswith("1.0 s per mask; masks that ")


def test_torch_has_its_thread_count_again_afterwards(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    with torch_threads(3):
        masks_of(make_clip(rate=5, sounds=[{"samples": tone(1.0)}]), model)
        assert torch.get_num_threads() == 3


def test_frames_come_with_their_mask_and_probability(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(seconds=2, rate=8, size=(50, 38), sounds=[{"samples": tone(1.0)}])
    found = list(iter_masks(clip, model=model, fps=Fraction(4), threshold=0.4, refine=False))
    assert [each.frame.time_s for each in found] == [k / 8 for k in range(16)]
    for each in found:
        assert each.frame.rgb.shape == (38, 50, 3)
        assert each.probability.dtype == np.float32
        assert np.array_equal(each.mask, each.probability > 0.4)
    assert {each.origin for each in found[:8]} <= {"computed", "interpolated", "reused"}
    assert found[0].origin == "computed"
    assert found[-1].origin == "silent"
    assert not found[-1].probability.any()
    inside = [each.probability[each.mask].mean() for each in found if each.mask.any()]
    assert [each.score for each in found if each.mask.any()] == pytest.approx(inside, abs=0.05)
    assert found[0].level_dbfs == pytest.approx(-9, abs=1)
    assert found[-1].level_dbfs is not None
    assert found[-1].level_dbfs < -60


def test_closing_the_iterator_early_ends_its_thread(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(seconds=4, sounds=[{"samples": tone(4.0)}])
    masks = iter_masks(clip, model=model, batch_size=1)
    next(masks)
    assert any(thread.name == "av2tsam-decode" for thread in threading.enumerate())
    masks.close()
    assert not any(thread.name == "av2tsam-decode" for thread in threading.enumerate())


def test_torch_keeps_its_threads_while_the_iterator_waits(
    make_clip: MakeClip, tone: Tone, model: LoadedModel
) -> None:
    clip = make_clip(sounds=[{"samples": tone(1.0)}])
    with torch_threads(3), closing(iter_masks(clip, model=model)) as masks:
        for _ in range(3):
            next(masks)
            assert torch.get_num_threads() == 3


def test_wrong_arguments_are_errors_before_the_iteration(
    make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="`end` must be later than `start`"):
        iter_masks(make_clip(), model=model, start=2.0, end=1.0)
    with pytest.raises(MediaError, match="missing"):
        iter_masks(tmp_path / "missing.mp4", model=model)
    with pytest.raises(UsageError, match="either `times` or `frame_rate`"):
        segment_frames([], model=model)
    with pytest.raises(UsageError, match="`sample_rate` is missing"):
        segment_frames([], np.zeros(5, np.float32), frame_rate=5, model=model)


@pytest.mark.parametrize("channels", [1, 2])
def test_arrays_have_the_masks_of_the_file_that_contains_them(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, channels: int
) -> None:
    samples = tone(1.5, channels=channels)
    sound = {"samples": samples, "codec": "pcm_s16le"}
    clip = make_clip("clip.mkv", seconds=2, rate=10, sounds=[sound])
    from_file = list(iter_masks(clip, model=model))
    frames = [each.frame.rgb for each in from_file]
    stored = np.rint(samples * 32767).astype(np.int16)
    for audio in (stored, stored.astype(np.float32) / 32768):
        from_arrays = list(
            segment_frames(frames, audio, frame_rate=10, sample_rate=48_000, model=model)
        )
        assert [each.origin for each in from_arrays] == [each.origin for each in from_file]
        for ours, theirs in zip(from_arrays, from_file, strict=True):
            assert np.array_equal(ours.frame.rgb, theirs.frame.rgb)
            assert ours.frame.time_s == pytest.approx(theirs.frame.time_s, abs=0.001)
            np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-3)


def test_a_text_prompt_segments_arrays_without_audio(model: LoadedModel) -> None:
    frames = (grey_step(index, 60, 40) for index in range(4))
    found = list(segment_frames(frames, times=[0.0, 0.5, 0.7, 3.0], text="the dog", model=model))
    assert [each.frame.time_s for each in found] == [0.0, 0.5, 0.7, 3.0]
    assert all(each.mask.any() for each in found)


@pytest.mark.parametrize(
    ("frames", "times", "complaint"),
    [
        ([np.zeros((4, 4, 3))], [0.0], r"frame 0 of `frames`"),
        ([np.zeros((4, 4, 3), np.uint8)] * 2, [0.0], r"`times` must increase.*frame 1"),
        ([np.zeros((4, 4, 3), np.uint8)] * 2, [1.0, 1.0], r"`times` must increase.*frame 1"),
    ],
)
def test_arrays_that_are_not_frames_over_time_are_errors(
    model: LoadedModel, frames: Any, times: list[float], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        list(segment_frames(frames, times=times, model=model))


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_the_table_and_the_events_say_what_the_masks_show(
    make_clip: MakeClip, tone: Tone, model: LoadedModel, tmp_path: Path, start: float
) -> None:
    times_s = [0, 0.1, 0.15, 0.4, 0.5, 0.9, 1.0, 1.25, 1.5, 1.8]  # a variable frame rate
    clip = make_clip(
        times_s=times_s,
        sounds=[
            {"samples": tone(1.0)},
        ],
    )
    table, events = tmp_path / "t.csv", tmp_path / "e.json"
    sheet, page = tmp_path / "p.jpg", tmp_path / "r.html"
    result = segment_video(
        clip,
        tmp_path / "o.mp4",
        frames_csv=table,
        events=events,
        preview=sheet,
        report=page,
        start=start,
        model=model,
    )
    assert result.outputs == (tmp_path / "o.mp4", table, events, sheet, page)
    assert all(f'"link": "{each.name}"' in page.read_text() for each in result.outputs[:-1])
    frames = list(iter_masks(clip, start=start, model=model))
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = len(times_s) - len(frames)
    for row, masked in zip(rows, frames, strict=True):
        assert int(row["frame"]) == masked.frame.index
        assert int(row["source_frame"]) == masked.frame.index + first
        assert float(row["time_s"]) == pytest.approx(times_s[int(row["source_frame"])], abs=1e-3)
        assert row["origin"] == masked.origin
        assert int(row["area_px"]) == masked.mask.sum()
        if masked.level_dbfs is not None:
            assert float(row["level_dbfs"]) == pytest.approx(masked.level_dbfs, abs=0.06)
        if not masked.mask.any():
            assert row["box_x"] == row["centroid_x"] == row["score"] == ""
            continue
        ys, xs = np.nonzero(masked.mask)
        box = [int(row[f"box_{name}"]) for name in ("x", "y", "width", "height")]
        assert box == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert float(row["centroid_x"]) == pytest.approx(xs.mean(), abs=0.006)
        assert float(row["centroid_y"]) == pytest.approx(ys.mean(), abs=0.006)
        assert float(row["score"]) == pytest.approx(masked.score, abs=6e-4)
    (event,) = json.loads(events.read_text("utf-8"))["events"]
    seen = [masked.frame for masked in frames if masked.mask.any()]
    assert event["name"] == "sound source"
    assert event["start_s"] == pytest.approx(seen[0].time_s)
    assert event["end_s"] == pytest.approx(seen[-1].time_s + (seen[-1].duration_s or 0))
