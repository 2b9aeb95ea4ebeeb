"""Embeddings of a fixed list of names, which a small model has instead of a text encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NameTable(nn.Module):
    """One learned embedding per name, in the space of an audio or image encoder.

    Trained with the pairwise sigmoid loss of Zhai et al., "Sigmoid Loss for Language Image
    Pre-Training", 2023, because several names can apply at once. K = names, E = width.
    """

    def __init__(self, names: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(nn.init.normal_(torch.empty(names, width)))
        self.scale = nn.Parameter(torch.full((), 10.0))
        self.bias = nn.Parameter(torch.full((), -5.0))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logit that each name applies, float32, (N, K), for embeddings (N, E)."""
        unit = F.normalize(embeddings.float(), dim=1)
        similarity = unit @ F.normalize(self.table.float(), dim=1).T
        return self.scale.float() * similarity + self.bias.float()
