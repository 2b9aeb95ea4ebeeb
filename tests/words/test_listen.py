"""Events from what is heard in each second."""

from collections.abc import Callable
from pathlib import Path

import pytest

import av2tsam
from av2tsam_cli.errors import MediaError
from av2tsam_cli.values import HeardSource, SoundEvent
from av2tsam_cli.words.listen import to_events

SAMPLES = Path(__file__).parents[2] / "sample_media"
DOG, CAT = HeardSource("dog", 0.8), HeardSource("cat", 0.6)


def test_seconds_without_a_break_are_one_event() -> None:
    heard = {0: (DOG,), 1: (HeardSource("dog", 0.6), CAT), 2: (CAT,), 3: (), 4: (DOG,)}
    assert to_events(heard, 4.5) == (
        SoundEvent("dog", 0.0, 2.0, pytest.approx(0.7)),
        SoundEvent("cat", 1.0, 3.0, pytest.approx(0.6)),
        SoundEvent("dog", 4.0, 4.5, pytest.approx(0.8)),
    )


def test_seconds_that_are_missing_are_a_break() -> None:
    events = to_events({3: (DOG,), 7: (DOG,)}, 8.0)
    assert [(event.start_s, event.end_s) for event in events] == [(3.0, 4.0), (7.0, 8.0)]


def test_nothing_heard() -> None:
    assert to_events({0: (), 1: ()}, 2.0) == ()


def test_the_library_function_listens_to_a_file(make_clip: Callable[..., Path]) -> None:
    seconds: list[int] = []
    model = av2tsam.load_model("nano", use="sounds", device="cpu")
    found = av2tsam.listen(SAMPLES / "solo.mp4", model=model, progress=seconds.append)
    assert [(e.name, e.start_s, e.end_s) for e in found.events] == [("frog", 0.0, 5.0)]
    assert seconds == [1, 2, 3, 4, 5]
    with pytest.raises(MediaError, match="has no audio"):
        av2tsam.listen(make_clip(seconds=0.2), model=model)
