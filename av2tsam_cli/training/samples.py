"""One video with its labels as the network takes it.

Letters: T labelled seconds of the video, h, w size of the frames, H, W size of the masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.training.avsbench import Clip, read_frames, read_masks
from av2tsam_cli.values import UInt8Array

Embed = Callable[[Clip, Sequence[int]], tuple[Tensor, Tensor]]
"""CLIP (T, E) and CLAP (T, A) embeddings of some seconds of a video, float32."""
ReadSample = Callable[[Clip], "Sample"]


@dataclass(frozen=True)
class Sample:
    """The labelled seconds of one video."""

    clip: Clip
    """Where it comes from."""
    frames: Tensor = field(repr=False)
    """Pixels, uint8, (T, 3, h, w), RGB, squashed where the network wants it so."""
    masks: Tensor = field(repr=False)
    """What sounds, bool, (T, H, W)."""
    clip_embeddings: Tensor = field(repr=False)
    """Float32, (T, E)."""
    clap_embeddings: Tensor = field(repr=False)
    """Float32, (T, A)."""


def read_sample(clip: Clip, config: ModelConfig, embed: Embed) -> Sample:
    """Read the labelled seconds of one video.

    Args:
        clip: The video.
        config: Says to which size the network wants its frames squashed.
        embed: Gives the embeddings, from a cache or from the towers.

    Raises:
        MediaError: A file of it is missing or damaged.
    """
    seconds = clip.labelled
    clip_embeddings, clap_embeddings = embed(clip, seconds)
    return Sample(
        clip=clip,
        frames=source_frames(read_frames(clip, seconds), config.source_size),
        masks=torch.from_numpy(read_masks(clip, seconds)),
        clip_embeddings=clip_embeddings,
        clap_embeddings=clap_embeddings,
    )


def source_frames(frames: UInt8Array, size: int | None) -> Tensor:
    """Frames (T, H, W, 3) as all three images of the network are made from: (T, 3, h, w)."""
    squashed = frames if size is None else np.stack([squash(frame, size) for frame in frames])
    return torch.from_numpy(squashed).permute(0, 3, 1, 2).contiguous()


def prepare(
    network: nn.Module, frames: Sequence[Tensor], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What SAM and BEiT-3 see of several videos' frames, (N, 3, S, S) and (N, 3, b, b).

    Args:
        network: Says how, with its `prepare`.
        frames: One tensor (T, 3, h, w) per video; sizes may differ between videos.
        device: Where it is done, and where the result is.
    """
    alike = len({part.shape[1:] for part in frames}) == 1
    parts = [torch.cat(list(frames))] if alike else frames
    prepared = [network.prepare(part.to(device)) for part in parts]
    sam, beit = zip(*prepared, strict=True)
    return torch.cat(sam), torch.cat(beit)
