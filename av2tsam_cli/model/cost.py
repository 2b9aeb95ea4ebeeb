"""Count the parameters and FLOPs of a network by part, without its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from av2tsam_cli.model.av2tsam import build_empty
from av2tsam_cli.model.config import ModelConfig

Result = TypeVar("Result")


@dataclass(frozen=True)
class PartCost:
    """What one part of a network costs."""

    parameters: int
    """Number of parameters."""
    flops: int
    """Floating-point operations for one frame with its second of audio, where a multiplication with
    its addition counts as 2. As in PyTorch's FlopCounterMode only convolutions and matrix products
    count, attention included; resizing and the spectrogram do not."""


def count_costs(config: ModelConfig) -> dict[str, PartCost]:
    """Count the costs of each part, in the order in which a frame passes through them.

    Shapes are propagated on the meta device, which needs neither weights nor memory.
    """
    # Some buffers are made on the CPU even so.
    network = build_empty(config).to("meta").eval().requires_grad_(False)
    text_sam = network.text_sam
    counter = _Counter()
    with torch.inference_mode(), torch.device("meta"):
        image = torch.empty(1, 3, config.clip.image_size, config.clip.image_size)
        clip = counter.run("clip", lambda: network.clip(image), network.clip)
        spectrogram = torch.empty(1, 1, config.clap.spec_size, config.clap.spec_size)
        clap = counter.run(
            "clap",
            lambda: network.clap.projection(network.clap.encode(spectrogram).mean(1)),
            network.clap,
        )
        projection = counter.run(
            "projector", lambda: network.projector(clip, clap), network.projector
        )
        block_vectors = None
        if (adapter := network.adapter) is not None:
            block_vectors = counter.run("adapter", lambda: adapter(projection.feature), adapter)
        image = torch.empty(1, 3, config.beit3.image_size, config.beit3.image_size)
        encoded = counter.run(
            "beit3", lambda: text_sam.beit3(image, projection.tokens), text_sam.beit3
        )
        head = text_sam.text_hidden_fcs[0]
        prompt = counter.run("text_hidden_fcs", lambda: head(encoded[:, :1]), head)
        image = torch.empty(1, 3, config.sam.image_size, config.sam.image_size)
        encoder = text_sam.image_encoder
        maps = counter.run("image_encoder", lambda: encoder(image, block_vectors), encoder)
        decoder, dense = text_sam.mask_decoder, text_sam.prompt_encoder.dense()
        # Positions are constant, so computing them does not count.
        positions = torch.empty(1, config.sam.decoder_dim, config.sam.grid, config.sam.grid)
        counter.run(
            "prompt_and_mask_decoder",
            lambda: decoder(decoder.image_features(maps), positions, dense, prompt),
            nn.ModuleList([text_sam.prompt_encoder, decoder]),
        )
    return counter.costs


class _Counter:
    """Runs parts one after the other and keeps their costs."""

    def __init__(self) -> None:
        self.costs: dict[str, PartCost] = {}

    def run(self, name: str, call: Callable[[], Result], part: nn.Module) -> Result:
        """Run a part, count its FLOPs and parameters, and return its result."""
        with FlopCounterMode(display=False) as counter:
            result = call()
        parameters = sum(parameter.numel() for parameter in part.parameters())
        self.costs[name] = PartCost(parameters, counter.get_total_flops())
        return result
