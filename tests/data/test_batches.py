"""Which videos are taken together, and reading them ahead."""

from contextlib import closing
from itertools import chain
from threading import Event

import pytest

from av2tsam_cli.data.batches import draw, epoch_batches, read_ahead, share, split


def test_an_epoch_takes_every_video_once_in_an_order_of_its_own() -> None:
    first, second = (epoch_batches(10, 4, seed=1, epoch=epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert first == epoch_batches(10, 4, seed=1, epoch=0)
    assert first != epoch_batches(10, 4, seed=2, epoch=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_processes_together_take_the_whole_batch(world_size: int) -> None:
    shares = [share(range(4), rank, world_size) for rank in range(world_size)]
    assert sorted(chain(*shares)) == [0, 1, 2, 3]


def test_parts_are_of_one_size_as_far_as_can_be() -> None:
    assert [len(part) for part in split(range(8), 3)] == [3, 2, 3]
    assert [len(part) for part in split(range(2), 4)] == [1, 1]


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    few, many = (set(draw(range(1000), count, seed=3)) for count in (50, 200))
    assert len(few) == 50
    assert few < many


def test_reading_stays_a_few_groups_ahead_and_keeps_the_order() -> None:
    asked: list[int] = []

    def read(item: int) -> int:
        asked.append(item)
        return -item

    with closing(read_ahead(read, [[k] for k in range(100)], threads=2)) as groups:
        assert [next(groups) for _ in range(3)] == [[0], [-1], [-2]]
        assert len(asked) < 10


def test_what_fails_is_raised_where_it_would_have_come() -> None:
    go = Event()

    def read(item: int) -> int:
        go.wait(10)
        if item == 2:
            raise ValueError(item)
        return item

    groups = read_ahead(read, [[0], [1, 2], [3]], threads=3)
    go.set()
    assert next(groups) == [0]
    with pytest.raises(ValueError, match="2"):
        next(groups)
