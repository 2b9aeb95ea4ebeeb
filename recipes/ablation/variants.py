"""What is compared: the paper's network, parts of it, and sound that skips the text space.

Letters: N frames, A and E widths of the CLAP and CLIP embeddings, D BEiT-3's, C SAM's prompt's.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from av2tsam_cli.model.av2tsam import Av2tSam, build, build_adapter, build_projector
from av2tsam_cli.model.config import PRESETS, ModelConfig, ProjectorKind
from av2tsam_cli.model.text_sam import TextSam


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    title: str
    """As the table calls it."""
    projector: ProjectorKind
    """What the feature is made of."""
    adapter: bool = False
    """Whether the image encoder is told the feature."""
    text_space: bool = True
    """Whether the feature goes through BEiT-3's text space; otherwise it is SAM's prompt."""


VARIANTS = {
    "direct": Variant("CLAP straight to SAM's prompt", "clap", text_space=False),
    "clap": Variant("CLAP in the text space", "clap"),
    "clip": Variant("CLIP in the text space", "clip"),
    "product": Variant("CLIP ⊙ CLAP in the text space", "mul"),
    "adapters": Variant("CLIP ⊙ CLAP with adapters", "mul", adapter=True),
}


class DirectPrompt(TextSam):
    """SAM prompted as in earlier work: an MLP makes the prompt, and nothing reads the image."""

    def encode_prompt(
        self, beit_images: Tensor, text_embeddings: Tensor, text_padding: Tensor | None = None
    ) -> Tensor:
        """The projector's tokens (N, 3, D) to a prompt (N, 1, C)."""
        del beit_images, text_padding
        prompt: Tensor = self.text_hidden_fcs[0](text_embeddings.flatten(1))
        return prompt[:, None]


def base_network(run: Path) -> Av2tSam:
    """What the paper starts from, in small: a SAM that follows words, and CLIP and CLAP towers.

    Args:
        run: Run folder of `recipes/nano/make.py`, in which these stages are done. None of them has
            paired a sound with a picture.
    """
    network = build(PRESETS["nano"])
    told = load_file(run / "text-again.safetensors")
    words = {k.removeprefix("0."): v for k, v in told.items() if k.startswith("0.")}
    network.text_sam.load_state_dict(words)
    network.clip.load_state_dict(load_file(run / "clip.safetensors"))
    network.clap.load_state_dict(load_file(run / "clap-again.safetensors"))
    return network.eval()


def begin(variant: Variant, base: Av2tSam, seed: int) -> Av2tSam:
    """The network that one run trains: the base with a fresh projector, and what else it takes."""
    torch.manual_seed(seed)
    config = replace(base.config, projector=variant.projector, adapter=variant.adapter)
    return Av2tSam(
        config=config,
        clip=base.clip,
        clap=base.clap,
        projector=build_projector(config),
        adapter=build_adapter(config),
        text_sam=base.text_sam if variant.text_space else direct(base.text_sam, config),
    ).eval()


def direct(text_sam: TextSam, config: ModelConfig) -> DirectPrompt:
    """The same SAM with a fresh head between the projector's tokens and its prompt."""
    width = config.beit3.dim
    head = nn.Sequential(
        nn.Linear(config.tokens * width, width), nn.ReLU(), nn.Linear(width, config.sam.decoder_dim)
    )
    return DirectPrompt(
        image_encoder=text_sam.image_encoder,
        prompt_encoder=text_sam.prompt_encoder,
        mask_decoder=text_sam.mask_decoder,
        beit3=text_sam.beit3,
        prompt_head=head,
        upscale_to=text_sam.upscale_to,
    )
