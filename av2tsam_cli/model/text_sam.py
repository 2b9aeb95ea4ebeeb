"""A text-prompted SAM: BEiT-3 encodes image and text together and produces the prompt."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.beit3 import Beit3
from av2tsam_cli.model.config import Beit3Config, Sam2Config, SamConfig
from av2tsam_cli.model.sam import (
    HighResMaskDecoder,
    ImageFeatures,
    MaskPrediction,
    SamImageEncoder,
    SamMaskDecoder,
    SamPromptEncoder,
)
from av2tsam_cli.model.sam2 import Sam2ImageEncoder, Sam2MaskDecoder


class TextSam(nn.Module):
    """EVF-SAM's network (Zhang et al. 2024). N = frames, C = decoder width, D = BEiT-3's width."""

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        prompt_encoder: SamPromptEncoder,
        mask_decoder: SamMaskDecoder,
        beit3: Beit3,
        prompt_head: nn.Module,
        upscale_to: int | None,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.beit3 = beit3
        # A list of one, to match the names in the public checkpoints.
        self.text_hidden_fcs = nn.ModuleList([prompt_head])
        self.upscale_to = upscale_to

    def encode_image(
        self, sam_images: Tensor, block_vectors: Sequence[Tensor] | None = None
    ) -> ImageFeatures:
        """Encode normalised images (N, 3, S, S), with a vector (N, width) added at each block."""
        return self.mask_decoder.image_features(self.image_encoder(sam_images, block_vectors))

    def encode_prompt(
        self, beit_images: Tensor, text_embeddings: Tensor, text_padding: Tensor | None = None
    ) -> Tensor:
        """Encode images (N, 3, b, b) with text (N, L, D) to one prompt each, (N, 1, C)."""
        encoded = self.beit3(beit_images, text_embeddings, text_padding)
        prompt: Tensor = self.text_hidden_fcs[0](encoded[:, :1])
        return prompt

    def decode(self, features: ImageFeatures, prompt: Tensor) -> MaskPrediction:
        """Predict all four masks of N images with one prompt each, (N, 1, C)."""
        prediction: MaskPrediction = self.mask_decoder(
            features, self.prompt_encoder.positions(), self.prompt_encoder.dense(), prompt
        )
        return prediction

    def resize(
        self, logits: Tensor, size: tuple[int, int], *, resized: tuple[int, int] | None = None
    ) -> Tensor:
        """Resize mask logits as the reference's postprocessing does.

        Args:
            logits: (N, M, h, w).
            size: Height and width of the result.
            resized: For images padded to a square: the size of the picture without padding.

        Returns:
            (N, M, *size). SAM 1 resizes to its input size first, SAM 2 directly.
        """
        if self.upscale_to is not None:
            logits = _bilinear(logits, (self.upscale_to, self.upscale_to))
            if resized is not None:
                logits = logits[..., : resized[0], : resized[1]]
        return _bilinear(logits, size)


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def build_text_sam(sam: SamConfig | Sam2Config, beit3: Beit3Config) -> TextSam:
    """Build a text-prompted SAM 1 or SAM 2 with random weights."""
    head = nn.Sequential(
        nn.Linear(beit3.dim, beit3.dim), nn.ReLU(), nn.Linear(beit3.dim, sam.decoder_dim)
    )
    if isinstance(sam, SamConfig):
        return TextSam(
            image_encoder=SamImageEncoder(sam),
            prompt_encoder=SamPromptEncoder(sam),
            mask_decoder=HighResMaskDecoder(sam, (sam.dim // 4, sam.dim // 2))
            if sam.high_res
            else SamMaskDecoder(sam),
            beit3=Beit3(beit3),
            prompt_head=head,
            upscale_to=sam.image_size,
        )
    return TextSam(
        image_encoder=Sam2ImageEncoder(sam),
        prompt_encoder=SamPromptEncoder(sam),
        mask_decoder=Sam2MaskDecoder(sam),
        beit3=Beit3(beit3),
        prompt_head=head,
        upscale_to=None,
    )
