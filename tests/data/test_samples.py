"""Batches, shards and prefetching."""

from contextlib import closing
from itertools import chain
from threading import Event

import pytest

from av2tsam_cli.data.samples import (
    epoch_batches,
    prefetch,
    random_subset,
    shard,
    split_evenly,
)


def test_an_epoch_contains_every_video_once_in_its_own_order() -> None:
    first, second = (epoch_batches(10, 4, seed=1, epoch=epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert first == epoch_batches(10, 4, seed=1, epoch=0)
    assert first != epoch_batches(10, 4, seed=2, epoch=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shards_cover_the_whole_batch(world_size: int) -> None:
    shards = [shard(range(4), rank, world_size) for rank in range(world_size)]
    assert sorted(chain(*shards)) == [0, 1, 2, 3]


def test_parts_differ_in_size_by_one_at_most() -> None:
    assert [len(part) for part in split_evenly(range(8), 3)] == [3, 2, 3]
    assert [len(part) for part in split_evenly(range(2), 4)] == [1, 1]


def test_a_smaller_random_subset_is_part_of_a_larger_one() -> None:
    few, many = (set(random_subset(range(1000), count, seed=3)) for count in (50, 200))
    assert len(few) == 50
    assert few < many


def test_prefetching_is_limited_and_keeps_the_order() -> None:
    requested: list[int] = []

    def read(item: int) -> int:
        requested.append(item)
        return -item

    with closing(prefetch(read, [[k] for k in range(100)], threads=2)) as groups:
        assert [next(groups) for _ in range(3)] == [[0], [-1], [-2]]
        assert len(requested) < 10


def test_an_error_is_raised_when_its_group_is_due() -> None:
    go = Event()

    def read(item: int) -> int:
        go.wait(10)
        if item == 2:
            raise ValueError(item)
        return item

    groups = prefetch(read, [[0], [1, 2], [3]], threads=3)
    go.set()
    assert next(groups) == [0]
    with pytest.raises(ValueError, match="2"):
        next(groups)
