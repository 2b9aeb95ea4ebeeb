from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch

from av2tsam_cli.timeline.schedule import (
    ScheduledFrame,
    add_motion,
    batches,
    logits_over_time,
    mark_keys,
    mark_repeats,
    pair_with_audio,
    without_audio,
)
from av2tsam_cli.values import AudioWindow, Frame

RATE_HZ = 100


def frames(times_s: Iterable[float], size: tuple[int, int] = (4, 6)) -> Iterator[Frame]:
    for index, time_s in enumerate(times_s):
        yield Frame(rgb=np.zeros((*size, 3), np.uint8), time_s=time_s, index=index)


def window(index: int, level: float = 0.5) -> AudioWindow:
    return AudioWindow(np.full(RATE_HZ, level, np.float32), index=index, rate_hz=RATE_HZ)


def scheduled(*rows: tuple[float, int | None, bool]) -> list[ScheduledFrame]:
    """Frames from rows of time, window index or None, and key."""
    return [
        ScheduledFrame(frame, None if index is None else window(index), index, key)
        for frame, (_, index, key) in zip(frames(row[0] for row in rows), rows, strict=True)
    ]


def windows_of(times_s: Iterable[float], *windows: AudioWindow) -> list[int | None]:
    found = pair_with_audio(frames(times_s), windows, silence_dbfs=-60.0)
    return [None if m.window is None else m.window.index for m in found]


def test_each_frame_is_paired_with_the_second_it_falls_into() -> None:
    times_s = [0.0, 0.5, 0.999, 1.0, 1.5, 2.0]
    assert windows_of(times_s, window(0), window(1), window(2)) == [0, 0, 0, 1, 1, 2]


def test_a_time_rounded_just_below_a_second_belongs_to_that_second() -> None:
    assert windows_of([1.02133333 - 0.02133333 - 1e-9], window(0), window(1)) == [1]


def test_frames_before_and_after_the_audio_have_no_window() -> None:
    assert windows_of([0.2, 1.2, 2.2, 3.2], window(1), window(2)) == [None, 1, 2, None]


def test_a_video_that_starts_late_skips_the_windows_before_it() -> None:
    assert windows_of([2.5], window(0), window(1), window(2)) == [2]


def test_frames_of_a_missing_window_have_none() -> None:
    assert windows_of([0.1, 1.1, 2.1], window(0), window(2)) == [0, None, 2]


def test_silent_seconds_are_not_computed_unless_the_gate_is_off() -> None:
    quiet = window(1, level=10 ** (-61 / 20))
    assert windows_of([0.5, 1.5], window(0), quiet) == [0, None]
    louder = window(1, level=10 ** (-59 / 20))
    assert windows_of([0.5, 1.5], window(0), louder) == [0, 1]
    ungated = list(pair_with_audio(frames([0.5]), [window(0, level=0.0)], silence_dbfs=None))
    assert ungated[0].key


def test_with_a_rate_each_second_of_audio_starts_with_a_key_frame() -> None:
    times_s = [k / 10 for k in range(25)]
    found = pair_with_audio(frames(times_s), [window(k) for k in range(3)], None)
    keys = [m.frame.time_s for m in mark_keys(found, Fraction(2)) if m.key]
    assert keys == [0.0, 0.5, 1.0, 1.5, 2.0]
    found = pair_with_audio(frames(times_s), [window(k) for k in range(3)], None)
    keys = [m.frame.time_s for m in mark_keys(found, Fraction(1, 10)) if m.key]
    assert keys == [0.0, 1.0, 2.0]


def test_the_first_frame_after_silence_is_a_key_frame() -> None:
    found = mark_keys(
        scheduled((0.9, 0, True), (1.0, None, False), (2.0, 2, True)), Fraction(1, 10)
    )
    assert [m.key for m in found] == [True, False, True]


def test_a_text_prompt_needs_no_audio_and_has_a_key_frame_in_each_second() -> None:
    times_s = [k / 10 for k in range(25)]
    assert all(each.key for each in without_audio(frames(times_s)))
    keys = [
        m.frame.time_s for m in mark_keys(without_audio(frames(times_s)), Fraction(1, 10)) if m.key
    ]
    assert keys == [0.0, 1.0, 2.0]


def repeats(pictures: Iterable[npt.NDArray[np.uint8]], tolerance: float | None) -> list[int]:
    """Indices of the frames, ten a second, that get the mask of an earlier one."""
    shown = (Frame(picture, k / 10, k) for k, picture in enumerate(pictures))
    every = list(
        mark_repeats(pair_with_audio(shown, [window(k) for k in range(4)], None), tolerance)
    )
    assert all(each.key != each.repeats for each in every)
    return [each.frame.index for each in every if each.repeats]


def grey(*levels: int) -> Iterator[npt.NDArray[np.uint8]]:
    return (np.full((90, 160, 3), level, np.uint8) for level in levels)


def test_identical_frames_are_repeats_until_the_next_second_of_audio() -> None:
    assert repeats(grey(*[7] * 22), 0) == [*range(1, 10), *range(11, 20), 21]
    assert repeats(grey(7, 8, 8, 7), 0) == [2]
    assert repeats(grey(7, 7), None) == []


def test_with_a_text_prompt_repeats_continue_for_four_seconds() -> None:
    """Parts of a video can begin there."""
    found = mark_repeats(without_audio(frames([0.0, 0.9, 1.0, 3.9, 4.0, 7.5, 8.1])), 0)
    assert [each.key for each in found] == [True, False, False, False, True, False, True]


def test_a_difference_within_the_tolerance_counts_as_none() -> None:
    assert repeats(grey(10, 12, 8, 13, 12), 2) == [1, 2, 4]


def test_a_slow_fade_is_detected_once_it_exceeds_the_tolerance() -> None:
    assert repeats(grey(10, 11, 12, 13, 14, 15, 16), 2) == [1, 2, 4, 5]


def test_a_small_moving_object_is_detected_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)

    def shown(x: int) -> npt.NDArray[np.uint8]:
        picture = rng.normal(100, 1, (360, 640, 3))
        picture[200:212, x : x + 12] += 60
        return picture.round().astype(np.uint8)

    assert repeats((shown(x) for x in (300, 300, 303, 303)), 2) == [1, 3]


def test_frames_of_another_size_are_different() -> None:
    sizes = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)]
    assert repeats(sizes, 255) == []


def test_with_a_rate_only_key_frames_become_repeats() -> None:
    paired = pair_with_audio(frames(k / 10 for k in range(10)), [window(0)], None)
    marked = list(mark_repeats(mark_keys(paired, Fraction(5)), 0))
    assert [each.frame.index for each in marked if each.key] == [0]
    assert [each.frame.index for each in marked if each.repeats] == [2, 4, 6, 8]


def test_batches_have_at_most_size_key_frames_in_order() -> None:
    times_s = [k / 10 for k in range(10)]
    every = list(pair_with_audio(frames(times_s), [window(0)], None))
    groups = list(batches(every, 4))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert [m.frame.index for group in groups for m in group] == list(range(10))


def test_batches_are_bounded_and_do_not_mix_frames_with_and_without_prompt() -> None:
    times_s = [k / 50 for k in range(150)]
    found = pair_with_audio(frames(times_s), [window(0), window(2)], None)
    for group in batches(mark_keys(found, Fraction(3)), 4):
        assert len(group) <= 8
        assert len({m.window is None for m in group}) == 1


def test_batches_begin_every_four_seconds_whatever_was_before() -> None:
    every = list(without_audio(frames(k / 2 for k in range(20))))
    assert [len(group) for group in batches(every, 5)] == [5, 3, 5, 3, 4]
    assert [len(group) for group in batches(every[6:], 5)] == [2, 5, 3, 4]


def test_frames_of_two_sizes_never_share_a_batch() -> None:
    mixed = [*frames([0.0]), *frames([0.1], size=(8, 8))]
    assert [len(g) for g in batches(pair_with_audio(mixed, [window(0)], None), 4)] == [1, 1]


def test_batches_of_large_frames_are_bounded_in_bytes() -> None:
    every = list(without_audio(frames(k / 25 for k in range(7))))
    size = every[0].frame.rgb.nbytes
    assert [len(g) for g in batches(every, 4)] == [4, 3]
    assert [len(g) for g in batches(every, 4, 2 * size + 1)] == [2, 2, 2, 1]
    assert [len(g) for g in batches(every, 4, size - 1)] == [1] * 7
    assert [len(g) for g in batches(every, 4, 100 * size)] == [4, 3]


def over_time(*rows: tuple[float, int | None, float | None]) -> list[float | None]:
    """(time, window, logit of a key) each, to the logit of every frame."""
    marked = scheduled(*((time_s, index, logit is not None) for time_s, index, logit in rows))
    plan = list(add_motion(marked))
    decoded = (
        (each, None if logit is None else torch.full((1, 2, 2), logit))
        for each, (_, _, logit) in zip(plan, rows, strict=True)
    )
    result = list(logits_over_time(decoded))
    assert [each.frame.index for each, _ in result] == list(range(len(rows)))
    return [None if logits is None else float(logits.mean()) for _, logits in result]


def test_logits_between_two_key_frames_are_interpolated_linearly() -> None:
    found = over_time((0.0, 0, 2.0), (0.1, 0, None), (0.3, 0, None), (0.4, 0, -2.0))
    assert found == pytest.approx([2.0, 1.0, -1.0, -2.0])


def test_logits_after_the_last_key_frame_of_a_second_are_kept() -> None:
    assert over_time((0.8, 0, 2.0), (0.9, 0, None), (1.0, 1, -2.0)) == [2.0, 2.0, -2.0]
    assert over_time((0.8, 0, 2.0), (0.9, 0, None)) == [2.0, 2.0]


def test_with_a_text_prompt_logits_are_interpolated_across_seconds() -> None:
    logits = {0.0: 0.0, 1.0: 10.0}
    marked = mark_keys(without_audio(frames([0.0, 0.5, 0.9, 1.0, 1.5])), Fraction(1))
    decoded = (
        (each, torch.full((1, 2, 2), logits[each.frame.time_s]) if each.key else None)
        for each in add_motion(marked)
    )
    found = [float(made.mean()) for _, made in logits_over_time(decoded) if made is not None]
    assert found == pytest.approx([0.0, 5.0, 9.0, 10.0, 10.0])


def test_masks_do_not_extend_into_silence() -> None:
    rows = ((0.8, 0, 2.0), (0.9, 0, None), (1.0, None, None), (2.0, 2, 3.0))
    assert over_time(*rows) == [2.0, 2.0, None, 3.0]


def test_a_repeat_has_the_logits_of_its_key_frame_and_ends_an_interpolation() -> None:
    marked = scheduled((0.0, 0, True), (0.1, 0, False), (0.2, 0, False), (0.4, 0, True))
    plan = list(add_motion(marked))
    plan[2] = replace(plan[2], repeats=True)
    key, last = torch.full((1, 2, 2), 2.0), torch.full((1, 2, 2), -2.0)
    found = logits_over_time(zip(plan, (key, None, None, last), strict=True))
    assert [float(made.mean()) for _, made in found if made is not None] == [2.0, 2.0, 2.0, -2.0]
