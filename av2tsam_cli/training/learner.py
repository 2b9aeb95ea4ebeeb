"""The network and its loss as the loop and Fabric take them. N = frames of several videos."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from av2tsam_cli.data.samples import Sample, Seen, best_logits
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.losses import mask_loss


class Learner(nn.Module):
    """The network as Fabric wraps it: tensors in, logits of the best masks out."""

    def __init__(self, network: Av2tSam) -> None:
        super().__init__()
        self.network = network

    def forward(self, seen: Seen, beit: Tensor, clip: Tensor, clap: Tensor) -> Tensor:
        """Logits (N, 1, h, w); arguments as in `samples.Inputs`."""
        return best_logits(self.network, seen, beit, clip, clap)


def frames_loss(network: Av2tSam, logits: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Mean loss of all frames, each at the size of its mask.

    Args:
        network: Resizes the logits.
        logits: Of all frames of the samples, one after the other, (N, 1, h, w).
        samples: Whose masks may be of different sizes.
    """
    masks = [sample.masks[:, None].to(logits) for sample in samples]
    parts = torch.split(logits.float(), [len(mask) for mask in masks])
    pairs = list(zip(parts, masks, strict=True))
    sizes = dict.fromkeys((mask.shape[2], mask.shape[3]) for mask in masks)
    total = logits.new_zeros(())
    for size in sizes:
        ours, theirs = zip(*(pair for pair in pairs if pair[1].shape[2:] == size), strict=True)
        truth = torch.cat(theirs)
        total = total + mask_loss(network.text_sam.resize(torch.cat(ours), size), truth) * len(
            truth
        )
    return total / len(logits)
