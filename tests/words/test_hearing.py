"""Which names are heard when: nano on scenes, and the rules on scores chosen by hand."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack, synthesise
from av2tsam_cli.values import AudioWindow
from av2tsam_cli.words.hearing import MAX_SOURCES, Hearing, load_hearing
from av2tsam_cli.words.vocabulary import Background, Source, Vocabulary
from tests.tiny import TINY_CLAP

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def nano() -> LoadedModel:
    return load_model("nano", device="cpu", precision="fp32", use="words")


def windows_of(samples: np.ndarray, first: int = 0) -> Iterator[AudioWindow]:
    for index, second in enumerate(samples.reshape(-1, RATE_HZ), start=first):
        yield AudioWindow(second, index, RATE_HZ)


def names(windows: Sequence[AudioWindow]) -> list[set[str]]:
    return [{source.name for source in window.sources or ()} for window in windows]


def test_nano_names_the_sounds_of_a_scene_second_by_second(nano: LoadedModel) -> None:
    scene = sample_scene(scene_rng("test", 0, 1), subset="s4")
    heard = names([*load_hearing(nano).hear(windows_of(soundtrack(scene, RATE_HZ)))])
    expected = [
        {voice.category for voice in scene.voices if voice.sounds_at(second)}
        for second in range(scene.duration_s)
    ]
    assert heard == expected
    assert any(expected)


def test_two_sounds_at_once_are_both_named(nano: LoadedModel) -> None:
    rng = np.random.default_rng(0)
    mixed = synthesise("dog", rng, 2, RATE_HZ) + synthesise("trumpet", rng, 2, RATE_HZ)
    heard = names([*load_hearing(nano).hear(windows_of(mixed))])
    assert heard == [{"dog", "trumpet"}] * 2


def test_a_name_that_is_not_chosen_is_not_heard(nano: LoadedModel) -> None:
    barking = synthesise("dog", np.random.default_rng(0), 2, RATE_HZ)
    assert names([*load_hearing(nano, None, ["trumpet"]).hear(windows_of(barking))]) == [set()] * 2


def test_nothing_is_heard_in_silence(nano: LoadedModel) -> None:
    silence = np.zeros(3 * RATE_HZ, np.float32)
    windows = [*load_hearing(nano).hear(windows_of(silence))]
    assert [window.sources for window in windows] == [()] * 3


class Rows:
    """Scores of consecutive seconds that are chosen by hand."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = torch.tensor(rows)
        self.done = 0

    def __call__(self, embeddings: Tensor) -> Tensor:
        self.done += len(embeddings)
        return self.rows[self.done - len(embeddings) : self.done]


def listen(rows: Sequence[Sequence[float]], windows: Iterator[AudioWindow]) -> list[set[str]]:
    return names(hear(rows, windows))


def hear(rows: Sequence[Sequence[float]], windows: Iterator[AudioWindow]) -> list[AudioWindow]:
    sources = tuple(Source(name, (name,), name) for name in "abcdefgh"[: len(rows[0])])
    clap = ClapEmbedder(TINY_CLAP).eval()
    hearing = Hearing(
        clap,
        Vocabulary(sources, (Background("rain", ("rain",)),)),
        Rows(rows),
        context_s=1,
        silence_dbfs=-60,
    )
    return [*hearing.hear(windows)]


def loud(*indices: int) -> Iterator[AudioWindow]:
    rng = np.random.default_rng(0)
    rate_hz = TINY_CLAP.rate_hz
    for index in indices:
        yield AudioWindow(rng.normal(0, 0.1, rate_hz).astype(np.float32), index, rate_hz)


def test_a_name_starts_high_and_stays_until_it_is_low() -> None:
    rows = [[-1.5], [0.0], [-1.5], [-1.9], [-2.1], [-1.5]]
    assert listen(rows, loud(*range(6))) == [set(), {"a"}, {"a"}, {"a"}, set(), set()]


def test_names_do_not_stay_across_a_gap_or_silence() -> None:
    assert listen([[1.0], [-1.5]], loud(0, 2)) == [{"a"}, set()]
    (before, after), silent = loud(0, 2), np.zeros(TINY_CLAP.rate_hz, np.float32)
    with_silence = iter([before, AudioWindow(silent, 1, TINY_CLAP.rate_hz), after])
    assert listen([[1.0], [-1.5]], with_silence) == [{"a"}, set(), set()]


def test_names_are_numbered_in_the_order_in_which_they_are_first_heard() -> None:
    windows = hear([[-9.0, 1.0, 2.0], [1.0, -9.0, -9.0], [3.0, 2.0, 1.0]], loud(0, 1, 2))
    found = [[(each.name, each.number) for each in window.sources or ()] for window in windows]
    assert found == [[("c", 1), ("b", 2)], [("a", 3)], [("a", 3), ("b", 2), ("c", 1)]]


def test_only_the_most_likely_names_of_a_second_are_kept() -> None:
    (heard,) = listen([[1.0, 2, 3, 4, 5, 6]], loud(0))
    assert heard == set("cdef")
    assert len(heard) == MAX_SOURCES


def with_context(rows: Sequence[Sequence[float]]) -> tuple[Hearing, list[int]]:
    """Return a hearing with a context of 5 s, and the list of lengths in s that it will embed."""
    lengths: list[int] = []

    class Clap(ClapEmbedder):
        def forward(self, windows: Tensor) -> Tensor:
            lengths.extend([windows.shape[1] // TINY_CLAP.rate_hz] * len(windows))
            return super().forward(windows)

    vocabulary = Vocabulary((Source("a", ("a",), "a"),), ())
    hearing = Hearing(
        Clap(TINY_CLAP).eval(), vocabulary, Rows(rows), context_s=5, silence_dbfs=None
    )
    return hearing, lengths


def test_a_second_is_embedded_with_its_surroundings_where_there_are_any() -> None:
    hearing, lengths = with_context([[1.0]] * 7)
    heard = [*hearing.hear(loud(0, 1, 2, 3, 4, 8, 9, 20))]
    assert [window.index for window in heard] == [0, 1, 2, 3, 4, 8, 9, 20]
    # Seconds 0, 2, 4, then 8 and 9, then 20: the context ends at gaps.
    assert lengths == [3, 5, 3, 2, 2, 1]


def test_seconds_between_embedded_ones_have_the_mean_of_their_neighbours() -> None:
    hearing, _ = with_context([[0.0], [2.0], [-3.0]])
    heard = [*hearing.hear(loud(0, 1, 2, 3, 4))]
    chances = [window.sources[0].probability if window.sources else None for window in heard]
    expected = [torch.sigmoid(torch.tensor(v)).item() for v in (0.0, 1.0, 2.0, -0.5)]
    assert chances[:4] == pytest.approx(expected)
    assert chances[4] is None


def test_listening_needs_only_a_few_seconds_ahead() -> None:
    taken: list[int] = []

    def endless() -> Iterator[AudioWindow]:
        for index in range(10**6):
            taken.append(index)
            yield next(loud(index))

    hearing, _ = with_context([[1.0]] * 100)
    assert next(hearing.hear(endless())).index == 0
    assert len(taken) <= 20
