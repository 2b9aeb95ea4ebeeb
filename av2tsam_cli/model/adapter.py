"""The adapter: the feature, told to every block of the image encoder."""

from collections.abc import Sequence

from torch import Tensor, nn


class Adapter(nn.Module):
    """One small MLP per encoder block. N = frames, F = feature width.

    The reference shares the last layer between the blocks for SAM 1, whose blocks are all of one
    width, and gives each block its own for SAM 2.
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
        self.start_silent()

    def start_silent(self) -> None:
        """Zero the last layers: training begins at the image encoder as it was."""
        last = [self.shared, *(block[2] for block in self.blocks)]  # type: ignore[index]
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Feature (N, F) to one vector (N, width) per block, to be added to its input."""
        return [self.shared(block(feature)) for block in self.blocks]
