"""Events from what is heard in each second."""

from collections.abc import Callable
from pathlib import Path

import pytest

import av2tsam
from av2tsam_cli.errors import MediaError
from av2tsam_cli.values import HeardSource, SoundEvent
from av2tsam_cli.words.listen import Heard, to_events

SAMPLES = Path(__file__).parents[2] / "sample_media"
DOG, CAT = HeardSource("dog", 0.8), HeardSource("cat", 0.6)


def test_seconds_without_a_break_are_one_event() -> None:
    heard = [(DOG,), (HeardSource("dog", 0.6), CAT), (CAT,), (), (DOG,)]
    assert to_events((Heard(k, k + 1, each) for k, each in enumerate(heard)), 4.5) == (
        SoundEvent("dog", 0.0, 2.0, pytest.approx(0.7)),
        SoundEvent("cat", 1.0, 3.0, pytest.approx(0.6)),
        SoundEvent("dog", 4.0, 4.5, pytest.approx(0.8)),
    )


def test_seconds_that_are_missing_are_a_break() -> None:
    events = to_events([Heard(3, 4, (DOG,)), Heard(7, 8, (DOG,))], 8.0)
    assert [(event.start_s, event.end_s) for event in events] == [(3.0, 4.0), (7.0, 8.0)]


def test_nothing_heard() -> None:
    assert to_events([Heard(0, 1, ()), Heard(1, 2, ())], 2.0) == ()


def test_the_library_function_listens_to_a_file(make_clip: Callable[..., Path]) -> None:
    seconds: list[int] = []
    model = av2tsam.load_model("nano", use="sounds", device="cpu")
    found = av2tsam.listen(SAMPLES / "solo.mp4", model=model, progress=seconds.append)
    assert [(e.name, e.start_s, e.end_s) for e in found.events] == [("frog", 0.0, 5.0)]
    assert seconds == [1, 2, 3, 4, 5]
    with pytest.raises(MediaError, match="has no audio"):
        av2tsam.listen(make_clip(seconds=0.2), model=model)


def test_fine_timing_finds_changes_between_seconds() -> None:
    """The phone rings from the start, the frog croaks from 1.37 s, the phone rings till 6.18 s."""
    model = av2tsam.load_model("nano", use="sounds", device="cpu")
    found = av2tsam.listen(SAMPLES / "relay.mp4", model=model, timing="fine")
    phone, frog = ([e for e in found.events if e.name == name] for name in ("phone", "frog"))
    assert phone[0].end_s == pytest.approx(1.37, abs=0.1)
    assert frog[0].start_s == pytest.approx(1.37, abs=0.1)
    assert phone[-1].end_s == pytest.approx(6.18, abs=0.1)
