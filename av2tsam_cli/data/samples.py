"""One video with its labels as the network takes it, and the network's logits for it.

Letters: T labelled seconds of a video, N = frames of several videos, h, w size of the frames, H, W
size of the masks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip, read_frames, read_masks
from av2tsam_cli.data.cache import EmbeddingCache, Embeddings, cached_features, pixels
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.prediction import best_mask
from av2tsam_cli.model.preprocess import beit_image, sam_image

Embed = Callable[[Clip, Sequence[int]], Embeddings]
"""Embeddings of some seconds of a video, stacked."""
ReadSample = Callable[[Clip], "Sample"]
"""Reads the labelled seconds of a video."""
Seen = Tensor | list[Tensor]
"""Images (N, 3, S, S) that SAM sees, or the levels that its encoder made of them."""


@dataclass(frozen=True)
class Sample:
    """The labelled seconds of one video."""

    clip: Clip
    """Where it comes from."""
    frames: Tensor = field(repr=False)
    """Pixels, uint8, (T, 3, h, w), RGB, squashed where the network wants it so."""
    masks: Tensor = field(repr=False)
    """What sounds, bool, (T, H, W)."""
    embeddings: Embeddings = field(repr=False)
    """Stacked: (T, E), (T, A), where they are cached image features, and levels (T,)."""

    def parts(self, size: int) -> Iterator["Sample"]:
        """Consecutive parts of at most so many seconds."""
        given = self.embeddings
        for start in range(0, len(self.frames), size):
            rows = slice(start, start + size)
            image = tuple(level[rows] for level in given.image)
            embeddings = Embeddings(given.clip[rows], given.clap[rows], image)
            yield Sample(self.clip, self.frames[rows], self.masks[rows], embeddings)


@dataclass(frozen=True)
class Inputs:
    """What the network takes for N frames, on its device."""

    seen: Seen = field(repr=False)
    """Images or image features."""
    beit: Tensor = field(repr=False)
    """(N, 3, b, b)."""
    clip: Tensor = field(repr=False)
    """(N, E)."""
    clap: Tensor = field(repr=False)
    """(N, A)."""


def embed_from(cache: EmbeddingCache) -> Embed:
    """Look embeddings up in a cache that was built for the videos."""
    index = {clip: number for number, clip in enumerate(cache.clips)}
    return lambda clip, seconds: cache.batch([(index[clip], second) for second in seconds])


def read_sample(clip: Clip, config: ModelConfig, embed: Embed) -> Sample:
    """Read the labelled seconds of one video.

    Args:
        clip: The video.
        config: Says to which size the network wants its frames squashed.
        embed: Gives the embeddings.

    Raises:
        MediaError: A file of it is missing or damaged.
    """
    seconds = clip.labelled
    return Sample(
        clip=clip,
        frames=pixels(config, read_frames(clip, seconds)),
        masks=torch.from_numpy(read_masks(clip, seconds)),
        embeddings=embed(clip, seconds),
    )


def gather(config: ModelConfig, samples: Sequence[Sample], device: torch.device) -> Inputs:
    """The frames of several videos together, as the network takes them."""
    clip, clap, *levels = (
        torch.cat(parts).to(device)
        for parts in zip(*(_tensors(sample) for sample in samples), strict=True)
    )
    frames = [sample.frames.to(device) for sample in samples]
    if len({part.shape[1:] for part in frames}) == 1:
        frames = [torch.cat(frames)]
    beit = torch.cat([beit_image(part, config.beit3.image_size) for part in frames])
    if levels:
        return Inputs(levels, beit, clip, clap)
    sam = torch.cat([sam_image(part, config.sam.image_size) for part in frames])
    return Inputs(sam, beit, clip, clap)


def _tensors(sample: Sample) -> tuple[Tensor, ...]:
    embeddings = sample.embeddings
    return (embeddings.clip, embeddings.clap, *embeddings.image)


def best_logits(network: Av2tSam, seen: Seen, beit: Tensor, clip: Tensor, clap: Tensor) -> Tensor:
    """Logits (N, 1, h, w) of the best mask of each frame; arguments as in `Inputs`."""
    if isinstance(seen, Tensor):
        return best_mask(network(seen, beit, clip, clap))
    tokens = network.projector(clip, clap).tokens
    prompt = network.text_sam.encode_prompt(beit, tokens)
    return best_mask(network.text_sam.decode(cached_features(network, seen), prompt))
