"""A SAM that is prompted with text: BEiT-3 reads the image with the text and makes the prompt."""

from collections.abc import Sequence

from torch import Tensor, nn

from av2tsam_cli.model.beit3 import Beit3
from av2tsam_cli.model.config import Beit3Config, SamConfig
from av2tsam_cli.model.prediction import ImageFeatures, MaskPrediction, select
from av2tsam_cli.model.sam import SamImageEncoder, SamMaskDecoder, SamPromptEncoder

__all__ = ["TextSam", "select"]


class TextSam(nn.Module):
    """EVF-SAM's network (Zhang et al. 2024). N = frames, C = decoder width, D = BEiT-3's width."""

    def __init__(self, *, sam: SamConfig, beit3: Beit3Config) -> None:
        super().__init__()
        self.image_encoder = SamImageEncoder(sam)
        self.prompt_encoder = SamPromptEncoder(sam)
        self.mask_decoder = SamMaskDecoder(sam)
        self.beit3 = Beit3(beit3)
        # A list of one: so it is called in the public checkpoints.
        self.text_hidden_fcs = nn.ModuleList([_prompt_head(beit3.dim, sam.decoder_dim)])

    def encode_image(
        self, sam_images: Tensor, block_vectors: Sequence[Tensor] | None = None
    ) -> ImageFeatures:
        """Normalised images (N, 3, S, S) to features, each block told its vector (N, width)."""
        return ImageFeatures(self.image_encoder(sam_images, block_vectors))

    def encode_prompt(
        self, beit_images: Tensor, text_embeddings: Tensor, text_padding: Tensor | None = None
    ) -> Tensor:
        """Images (N, 3, b, b) read with text (N, L, D) to one prompt each, (N, 1, C)."""
        encoded = self.beit3(beit_images, text_embeddings, text_padding)
        return self.prompt_from_cls(encoded[:, :1])

    def prompt_from_cls(self, cls: Tensor) -> Tensor:
        """BEiT-3's class token (N, 1, D) to the prompt (N, 1, C)."""
        prompt: Tensor = self.text_hidden_fcs[0](cls)
        return prompt

    def decode(self, features: ImageFeatures, prompt: Tensor) -> MaskPrediction:
        """Features of N images with one prompt each, (N, 1, C), to all four masks."""
        prediction: MaskPrediction = self.mask_decoder(
            features, self.prompt_encoder.positions(), self.prompt_encoder.dense(), prompt
        )
        return prediction


def _prompt_head(text_dim: int, prompt_dim: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(text_dim, text_dim), nn.ReLU(), nn.Linear(text_dim, prompt_dim)
    )
