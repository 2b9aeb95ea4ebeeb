"""Which videos are taken together, by whom, and reading them ahead of the network."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Read = TypeVar("Read")

GROUPS_AHEAD = 2
"""Batches that are read while the network works; this bounds the memory."""


def epoch_batches(videos: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The order of one epoch, which depends on nothing but seed and epoch, cut into batches."""
    order = np.random.default_rng((seed, epoch)).permutation(videos).tolist()
    return [order[start : start + batch_size] for start in range(0, videos, batch_size)]


def draw(videos: Sequence[Item], count: int, *, seed: int) -> list[Item]:
    """So many of the videos, in their order; a smaller count draws some of the same."""
    order = np.random.default_rng(seed).permutation(len(videos))
    return [videos[place] for place in sorted(order[:count])]


def share(batch: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """What one of several processes takes of a batch."""
    return list(batch[rank::world_size])


def split(items: Sequence[Item], parts: int) -> list[Sequence[Item]]:
    """At most so many parts, all but equal in size, none of them empty."""
    bounds = np.linspace(0, len(items), min(parts, len(items)) + 1).round().astype(int)
    return [items[a:b] for a, b in pairwise(bounds)]


def read_ahead(
    read: Callable[[Item], Read], groups: Iterable[Sequence[Item]], *, threads: int
) -> Generator[list[Read], None, None]:
    """Read groups of items on threads, a few groups ahead of whoever takes them.

    An error is raised where its group would have come.
    """
    waiting: deque[list[Future[Read]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        for group in groups:
            waiting.append([pool.submit(read, item) for item in group])
            if len(waiting) > GROUPS_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
