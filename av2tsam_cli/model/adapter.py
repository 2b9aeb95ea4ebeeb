"""The adapter, which adds the feature to the input of every image-encoder block."""

from collections.abc import Sequence

from torch import Tensor, nn

INITIAL_STD = 0.02
"""Standard deviation of the first layers' initial weights."""


class Adapter(nn.Module):
    """One small MLP per encoder block. N = frames, F = feature width.

    As in the reference, the blocks of SAM 1, which all have one width, share the last layer; each
    block of SAM 2 has its own.
    """

    def __init__(self, *, feature_dim: int, block_dims: Sequence[int], shared: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(feature_dim, feature_dim),
                nn.GELU(),
                nn.Identity() if shared else nn.Linear(feature_dim, dim),
            )
            for dim in block_dims
        )
        self.shared = nn.Linear(feature_dim, block_dims[0]) if shared else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the first layers like the reference, and the last layers with zeros.

        The reference draws weights from a truncated normal distribution of std 0.02, with zero
        biases. Zero last layers differ from it: training starts from the unchanged image encoder.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        for block in self.blocks:
            nn.init.trunc_normal_(block[0].weight, std=INITIAL_STD)  # type: ignore[index]

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Map the feature (N, F) to one vector (N, width) per block, to be added to its input."""
        return [self.shared(block(feature)) for block in self.blocks]
