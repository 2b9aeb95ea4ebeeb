"""The adapter, which adds the feature to the input of every image-encoder block."""

from collections.abc import Sequence

from torch import Tensor, nn


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
        self.zero_last_layers()

    def zero_last_layers(self) -> None:
        """Zero the last layers, so that training starts from the unchanged image encoder."""
        last = [self.shared, *(block[2] for block in self.blocks)]  # type: ignore[index]
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Map the feature (N, F) to one vector (N, width) per block, to be added to its input."""
        return [self.shared(block(feature)) for block in self.blocks]
