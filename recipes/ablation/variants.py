"""The variants of the ablation: the paper's network, parts of it, and a direct audio prompt.

Letters: N frames, A and E widths of the CLAP and CLIP embeddings, D BEiT-3's, C SAM's prompt's.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.model.av2tsam import Av2tSam, build_adapter, build_projector
from av2tsam_cli.model.config import ModelConfig, ProjectorKind
from av2tsam_cli.model.text_sam import TextSam


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    title: str
    """Name in the table."""
    projector: ProjectorKind
    """Embeddings that the feature is computed from."""
    adapter: bool = False
    """Whether the image encoder has adapters."""
    text_space: bool = True
    """Whether BEiT-3 reads the feature as text; otherwise an MLP maps it to SAM's prompt."""


VARIANTS = {
    "direct": Variant("CLAP straight to SAM's prompt", "clap", text_space=False),
    "clap": Variant("CLAP in the text space", "clap"),
    "clip": Variant("CLIP in the text space", "clip"),
    "product": Variant("CLIP ⊙ CLAP in the text space", "mul"),
    "adapters": Variant("CLIP ⊙ CLAP with adapters", "mul", adapter=True),
}


class DirectPrompt(TextSam):
    """SAM prompted as in earlier work: an MLP computes the prompt, without the image."""

    def encode_prompt(
        self, beit_images: Tensor, text_embeddings: Tensor, text_padding: Tensor | None = None
    ) -> Tensor:
        """Map the projector's tokens (N, 3, D) to a prompt (N, 1, C)."""
        del beit_images, text_padding
        prompt: Tensor = self.text_hidden_fcs[0](text_embeddings.flatten(1))
        return prompt[:, None]


def base_network(run: Path) -> Av2tSam:
    """Load the base network: a text-prompted SAM, and the CLIP and CLAP towers.

    Args:
        run: Run folder of `recipes/nano/make.py`, which writes it before the first stage that pairs
            sound with pictures.
    """
    return load_network(run / "base.safetensors")


def initial_network(
    variant: Variant, base: Av2tSam, seed: int, *, pytorch_init: bool = False
) -> Av2tSam:
    """Build the network of a run: the base network with newly initialised trained parts.

    Args:
        variant: The variant.
        base: The base network.
        seed: Seed of the weights.
        pytorch_init: Initialise the new layers as PyTorch does by default, not as the reference.
    """
    torch.manual_seed(seed)
    config = replace(base.config, projector=variant.projector, adapter=variant.adapter)
    network = Av2tSam(
        config=config,
        clip=base.clip,
        clap=base.clap,
        projector=build_projector(config),
        adapter=build_adapter(config),
        text_sam=base.text_sam if variant.text_space else with_direct_prompt(base.text_sam, config),
    ).eval()
    if pytorch_init:
        new = [
            network.projector,
            *([] if variant.text_space else [network.text_sam.text_hidden_fcs]),
        ]
        for layer in (layer for part in new for layer in part.modules()):
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return network


def with_direct_prompt(text_sam: TextSam, config: ModelConfig) -> DirectPrompt:
    """Return the same SAM with a new MLP from the projector's tokens to the prompt."""
    width = config.beit3.dim
    head = nn.Sequential(
        nn.Linear(config.tokens * width, width), nn.ReLU(), nn.Linear(width, config.sam.decoder_dim)
    )
    for layer in (head[0], head[2]):  # as in the projector
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return DirectPrompt(
        image_encoder=text_sam.image_encoder,
        prompt_encoder=text_sam.prompt_encoder,
        mask_decoder=text_sam.mask_decoder,
        beit3=text_sam.beit3,
        prompt_head=head,
        upscale_to=text_sam.upscale_to,
    )
