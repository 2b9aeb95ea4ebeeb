"""AV2T-SAM: audio and image embeddings become text tokens that prompt a SAM."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.embeddings.clip import ClipEmbedder
from av2tsam_cli.model.adapter import Adapter
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.preprocess import beit_image, sam_image
from av2tsam_cli.model.projector import Projector
from av2tsam_cli.model.sam import MaskPrediction, best_mask, single_mask
from av2tsam_cli.model.text_sam import TextSam, build_text_sam

# The paper trains these; the rest (CLIP, CLAP, SAM's image encoder, BEiT-3) stays frozen.
TRAINED = (
    "projector.",
    "adapter.",
    "text_sam.mask_decoder.",
    "text_sam.prompt_encoder.no_mask_embed.",
    "text_sam.text_hidden_fcs.",
)


class Av2tSam(nn.Module):
    """The whole network. N = frames, each with its audio window."""

    def __init__(
        self,
        *,
        config: ModelConfig,
        clip: ClipEmbedder,
        clap: ClapEmbedder,
        projector: Projector,
        adapter: Adapter | None,
        text_sam: TextSam,
    ) -> None:
        super().__init__()
        self.config = config
        self.clip = clip
        self.clap = clap
        self.projector = projector
        self.adapter = adapter
        self.text_sam = text_sam

    def embed_windows(self, windows: Tensor) -> Tensor:
        """Embed one-second windows, (B, rate_hz) in [-1, 1], with CLAP: (B, A)."""
        embeddings: Tensor = self.clap(windows)
        return embeddings

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Embed frames, (B, 3, H, W) uint8 RGB, squashed to a square, with CLIP: (B, E)."""
        embeddings: Tensor = self.clip(self.clip.preprocess(frames))
        return embeddings

    def prepare(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convert frames, (B, 3, H, W) uint8 RGB, to the input images of SAM and of BEiT-3."""
        return (
            sam_image(frames, self.config.sam.image_size),
            beit_image(frames, self.config.beit3.image_size),
        )

    def forward(
        self,
        sam_images: Tensor,
        beit_images: Tensor,
        clip_embeddings: Tensor,
        clap_embeddings: Tensor,
    ) -> MaskPrediction:
        """Run the paper's figure, from left to right.

        Args:
            sam_images: (N, 3, S, S) from `prepare`.
            beit_images: (N, 3, b, b) from `prepare`.
            clip_embeddings: (N, E) of the frames.
            clap_embeddings: (N, A) of the windows.

        Returns:
            All four masks of each frame; `prediction.select` returns the best.
        """
        projection = self.projector(clip_embeddings, clap_embeddings)
        block_vectors = self.adapter(projection.feature) if self.adapter is not None else None
        features = self.text_sam.encode_image(sam_images, block_vectors)
        prompt = self.text_sam.encode_prompt(beit_images, projection.tokens)
        return self.text_sam.decode(features, prompt)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Embed the token ids (1, L) of a phrase, from `text.tokenizer_for`: (1, L, D)."""
        return self.text_sam.beit3.embed_text(ids)

    def segment_text(
        self, sam_images: Tensor, beit_images: Tensor, text_embeddings: Tensor
    ) -> Tensor:
        """Segment what a text prompt describes in each image.

        Args:
            sam_images: (N, 3, S, S) from `prepare`.
            beit_images: (N, 3, b, b) from `prepare`.
            text_embeddings: (1, L, D) from `embed_text`.

        Returns:
            Mask logits (N, 1, h, w), chosen according to `config.text_mask`.
        """
        shared = text_embeddings.expand(len(sam_images), -1, -1)
        return self.segment_phrases(sam_images, beit_images, shared)[0]

    def segment_phrases(
        self,
        sam_images: Tensor,
        beit_images: Tensor,
        text_embeddings: Tensor,
        text_padding: Tensor | None = None,
        images: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Segment what M phrases describe, each in one of N images; images are encoded only once.

        Args:
            sam_images: (N, 3, S, S) from `prepare`.
            beit_images: (N, 3, b, b) from `prepare`.
            text_embeddings: (M, L, D) from `embed_text`.
            text_padding: True where a token is only padding, bool, (M, L); None: all are real.
            images: Index of each phrase's image, int64, (M,); None: phrase m is for image m.

        Returns:
            Mask logits (M, 1, h, w), chosen according to `config.text_mask`, and their predicted
            IoU (M,).
        """
        features = self.text_sam.encode_image(sam_images)
        if images is not None:
            features, beit_images = features.select(images), beit_images[images]
        prompt = self.text_sam.encode_prompt(beit_images, text_embeddings, text_padding)
        prediction = self.text_sam.decode(features, prompt)
        if self.config.text_mask == "best":
            return best_mask(prediction), prediction.iou[:, 1:].amax(dim=1)
        logits, iou = single_mask(prediction)
        return logits, iou[:, 0]

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the names and parameters that the paper trains."""
        return ((n, p) for n, p in self.named_parameters() if n.startswith(TRAINED))

    def freeze_encoders(self) -> None:
        """Enable gradients only for the parameters that the paper trains."""
        self.requires_grad_(False)
        for _, parameter in self.trained_parameters():
            parameter.requires_grad_(True)


def build(config: ModelConfig) -> Av2tSam:
    """Build a network with random weights."""
    return Av2tSam(
        config=config,
        clip=ClipEmbedder(config.clip),
        clap=ClapEmbedder(config.clap),
        projector=build_projector(config),
        adapter=build_adapter(config),
        text_sam=build_text_sam(config.sam, config.beit3),
    )


def build_projector(config: ModelConfig) -> Projector:
    """Build the projector alone, with random weights."""
    return Projector(
        kind=config.projector,
        clip_dim=config.clip.embed_dim,
        clap_dim=config.clap.embed_dim,
        feature_dim=config.feature_dim,
        text_dim=config.beit3.dim,
        tokens=config.tokens,
    )


def build_adapter(config: ModelConfig) -> Adapter | None:
    """Build the adapters alone, with zeroed last layers; None if `config` has none."""
    if not config.adapter:
        return None
    return Adapter(
        feature_dim=config.feature_dim,
        block_dims=config.sam.block_dims,
        shared=config.sam.kind == "sam",
    )


def build_empty(config: ModelConfig) -> Av2tSam:
    """Build the network on the meta device: names and shapes without memory (except HTSAT)."""
    with torch.device("meta"), SkipRandomInit():
        return build(config)


class SkipRandomInit(TorchFunctionMode):
    """Skips random initialisation, which on the meta device would import torch's compiler.

    Small tensors that constructors compute with are drawn on the CPU.

    Args:
        everywhere: Whether to skip it on other devices as well. Memory that is only allocated, and
            never written to, costs nothing.
    """

    INITIALISERS = frozenset({"normal_", "trunc_normal_", "uniform_", "kaiming_uniform_"})

    def __init__(self, *, everywhere: bool = False) -> None:
        super().__init__()
        self.everywhere = everywhere

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            kwargs = {**kwargs, "device": "cpu"}
        tensor = args[0] if args else kwargs.get("tensor")
        is_initialiser = getattr(func, "__name__", "") in self.INITIALISERS
        if is_initialiser and isinstance(tensor, Tensor) and (self.everywhere or tensor.is_meta):
            return tensor
        return func(*args, **kwargs)
