"""The loss of a batch whose masks may be of several sizes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.cache import Embeddings
from av2tsam_cli.data.samples import Sample
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.training.learner import frames_loss
from av2tsam_cli.training.losses import mask_loss


def sample(masks: Tensor) -> Sample:
    clip = Clip("a", None, "train", "ms3", (), (), Path("a.wav"))
    frames = torch.zeros(len(masks), 3, 8, 8, dtype=torch.uint8)
    return Sample(clip, frames, masks, Embeddings(torch.zeros(1), torch.zeros(1)))


def test_each_frame_counts_the_same_whatever_video_and_size_it_is_of(tiny_model: Path) -> None:
    network = load_network(tiny_model)
    logits = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    small = torch.rand(2, 24, 24) > 0.5
    wide = torch.rand(1, 20, 40) > 0.5
    more = torch.rand(3, 24, 24) > 0.5
    samples = [sample(small), sample(wide), sample(more)]
    single = [
        mask_loss(
            network.text_sam.resize(logits[n : n + 1], (mask.shape[0], mask.shape[1])),
            mask[None, None].float(),
        )
        for n, mask in enumerate([*small, *wide, *more])
    ]
    loss = frames_loss(network, logits, samples)
    assert float(loss) == pytest.approx(float(torch.stack(single).mean()), rel=1e-5)
