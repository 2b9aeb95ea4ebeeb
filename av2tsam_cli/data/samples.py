"""Labelled videos as the network takes them: read, divided into batches, and prefetched.

Letters: T labelled seconds of a video, N = frames of several videos, h, w size of the frames, H, W
size of the masks.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.cache import Embeddings, cached_features, network_frames
from av2tsam_cli.data.clips import read_clip_frames, read_clip_masks
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.preprocess import beit_image, sam_image
from av2tsam_cli.model.sam import best_mask

Item = TypeVar("Item")
Result = TypeVar("Result")

Embed = Callable[[Clip, Sequence[int]], Embeddings]
"""Returns the embeddings of some seconds of a video, stacked."""
ReadSample = Callable[[Clip], "Sample"]
"""Reads the labelled seconds of a video."""
SamInput = Tensor | list[Tensor]
"""Images (N, 3, S, S) for SAM's image encoder, or the feature maps that it computed from them."""

GROUPS_AHEAD = 2
"""Groups of items that are prefetched; limits the memory in use."""


@dataclass(frozen=True)
class Sample:
    """The labelled seconds of one video."""

    clip: Clip
    """The video."""
    frames: Tensor = field(repr=False)
    """Pixels, uint8, (T, 3, h, w), RGB, resized if the model requires it."""
    masks: Tensor = field(repr=False)
    """True masks of the sounding objects, bool, (T, H, W)."""
    embeddings: Embeddings = field(repr=False)
    """Embeddings of the frames and of their sound."""

    def parts(self, size: int) -> Iterator["Sample"]:
        """Yield consecutive parts of at most `size` seconds."""
        whole = self.embeddings
        for start in range(0, len(self.frames), size):
            rows = slice(start, start + size)
            maps = tuple(level[rows] for level in whole.image)
            embeddings = Embeddings(whole.clip[rows], whole.clap[rows], maps)
            yield Sample(self.clip, self.frames[rows], self.masks[rows], embeddings)


@dataclass(frozen=True)
class NetworkInputs:
    """Inputs of the network for N frames, on its device."""

    sam: SamInput = field(repr=False)
    """Images or feature maps."""
    beit: Tensor = field(repr=False)
    """(N, 3, b, b)."""
    clip: Tensor = field(repr=False)
    """(N, E)."""
    clap: Tensor = field(repr=False)
    """(N, A)."""


def read_sample(clip: Clip, config: ModelConfig, embed: Embed) -> Sample:
    """Read the labelled seconds of one video.

    Args:
        clip: The video.
        config: Configuration of the network, which determines the size of the frames.
        embed: Returns the embeddings, such as `EmbeddingCache.read`.

    Raises:
        MediaError: A file of the video is missing or corrupted.
    """
    seconds = clip.labelled
    return Sample(
        clip=clip,
        frames=network_frames(config, read_clip_frames(clip, seconds)),
        masks=torch.from_numpy(read_clip_masks(clip, seconds)),
        embeddings=embed(clip, seconds),
    )


def collate(config: ModelConfig, samples: Sequence[Sample], device: torch.device) -> NetworkInputs:
    """Join the frames of several videos into inputs of the network."""
    embeddings = [sample.embeddings for sample in samples]
    clip = torch.cat([one.clip for one in embeddings]).to(device)
    clap = torch.cat([one.clap for one in embeddings]).to(device)
    maps = [
        torch.cat(level).to(device)
        for level in zip(*(one.image for one in embeddings), strict=True)
    ]
    frames = [sample.frames.to(device) for sample in samples]
    if len({part.shape[1:] for part in frames}) == 1:
        frames = [torch.cat(frames)]
    beit = torch.cat([beit_image(part, config.beit3.image_size) for part in frames])
    if maps:
        return NetworkInputs(maps, beit, clip, clap)
    sam = torch.cat([sam_image(part, config.sam.image_size) for part in frames])
    return NetworkInputs(sam, beit, clip, clap)


def best_logits(
    network: Av2tSam, sam: SamInput, beit: Tensor, clip: Tensor, clap: Tensor
) -> Tensor:
    """Return logits (N, 1, h, w) of the best mask of each frame; see `NetworkInputs`."""
    if isinstance(sam, Tensor):
        return best_mask(network(sam, beit, clip, clap))
    tokens = network.projector(clip, clap).tokens
    prompt = network.text_sam.encode_prompt(beit, tokens)
    return best_mask(network.text_sam.decode(cached_features(network, sam), prompt))


def epoch_batches(videos: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Return the shuffled indices of one epoch in batches; only `seed` and `epoch` matter."""
    order = np.random.default_rng((seed, epoch)).permutation(videos).tolist()
    return [order[start : start + batch_size] for start in range(0, videos, batch_size)]


def random_subset(items: Sequence[Item], count: int, *, seed: int) -> list[Item]:
    """Draw `count` items and keep their order; smaller subsets are part of larger ones."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[index] for index in sorted(order[:count])]


def shard(batch: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """Return the items of a batch that one of several processes handles."""
    return list(batch[rank::world_size])


def split_evenly(items: Sequence[Item], parts: int) -> list[Sequence[Item]]:
    """Split items into at most `parts` parts of nearly equal size, none of them empty."""
    bounds = np.linspace(0, len(items), min(parts, len(items)) + 1).round().astype(int)
    return [items[a:b] for a, b in pairwise(bounds)]


def prefetch(
    read: Callable[[Item], Result], groups: Iterable[Sequence[Item]], *, threads: int
) -> Generator[list[Result], None, None]:
    """Read groups of items on threads, a few groups ahead of the consumer.

    An error is raised when its group is due.
    """
    pending: deque[list[Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        for group in groups:
            pending.append([pool.submit(read, item) for item in group])
            if len(pending) > GROUPS_AHEAD:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
