"""The network that a training starts from, and which part of it learns."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.errors import UsageError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.registry import BUNDLED_MODEL, TEXT_ONLY_MODELS
from av2tsam_cli.hub.tensor_file import read_metadata
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam, build_adapter, build_projector
from av2tsam_cli.model.config import LAION_CLAP, MICROSOFT_CLAP, PRESETS, ModelConfig
from av2tsam_cli.training.options import TrainOptions

CLAPS = {"laion": LAION_CLAP, "microsoft": MICROSOFT_CLAP}

log = logging.getLogger(__name__)


def starting_network(options: TrainOptions) -> Av2tSam:
    """Load and build the network on the CPU, in float32.

    With `init="fresh"` it is what the paper starts from: a text-prompted SAM with its mask decoder
    and `text_hidden_fcs`, CLIP, CLAP, and a projector and adapters that know nothing; the adapters'
    last layers are zero. Of a model with trained parts only these two are left out.

    Raises:
        UsageError: The options do not fit the model.
        WeightsError: Weights are missing or damaged.
    """
    path = starting_checkpoint(options)
    begun = ModelConfig.from_json(read_metadata(path)["config"])
    config = _adjusted(begun, options)
    own_clap = config.clap == begun.clap
    taught = options.init == "model"
    told = taught and begun.adapter and config.adapter
    wanted = {"clap": own_clap, "projector": taught, "adapter": told}
    parts = ["clip", "text_sam", *(part for part, is_wanted in wanted.items() if is_wanted)]
    stored = load_network(path, dtype=torch.float32, parts=parts)
    network = Av2tSam(
        config=config,
        clip=stored.clip,
        clap=stored.clap if own_clap else _installed_clap(config, path),
        projector=stored.projector if taught else build_projector(config),
        adapter=stored.adapter if told else build_adapter(config),
        text_sam=stored.text_sam,
    )
    return network.eval()


def starting_checkpoint(options: TrainOptions) -> Path:
    """The file that the options' model stands for.

    Where projector and adapters start fresh, the name of a preset means its text-prompted SAM.

    Raises:
        WeightsError: It is not there.
    """
    model = options.model
    if options.init == "fresh" and model in PRESETS and model != BUNDLED_MODEL:
        model = f"{model}-text"
    if options.init == "fresh" and model is None:
        installed = (name for name in TEXT_ONLY_MODELS if locate.installed_path(name).is_file())
        model = next(installed, BUNDLED_MODEL)
    path = locate.resolve(model)
    if options.model is None:
        log.warning("starting from %s; --model names another", path.stem)
    return path


def _adjusted(begun: ModelConfig, options: TrainOptions) -> ModelConfig:
    """The stored configuration with what the options want otherwise."""
    config = begun
    if options.clap is not None and options.clap != begun.clap.kind:
        config = replace(config, clap=CLAPS[options.clap])
    if options.projector is not None:
        config = replace(config, projector=options.projector)
    if options.adapter is not None:
        config = replace(config, adapter=options.adapter)
    if options.init == "model":
        for option, ours, theirs in (
            ("--clap", config.clap.kind, begun.clap.kind),
            ("--projector", config.projector, begun.projector),
        ):
            if ours != theirs:
                raise UsageError(
                    f"{option} {ours}: the model's projector was trained with {theirs}; leave the "
                    "option out, or use --init fresh"
                )
    if options.cache_features and config.adapter:
        raise UsageError("--cache-features needs --no-adapter: adapters change the features")
    return config


def _installed_clap(config: ModelConfig, checkpoint: Path) -> ClapEmbedder:
    """Another CLAP than the checkpoint's, from its own file."""
    path = locate.part_file(config, "clap", checkpoint)
    return load_network(path, dtype=torch.float32, parts=("clap",)).clap


# What the choice among masks 1 to 3 reads but no loss reaches.
_NEVER_REACHED = (
    "text_sam.mask_decoder.iou_prediction_head.",
    "text_sam.mask_decoder.pred_obj_score_head.",
)
_UNUSED_BY = {"mul": (), "clap": ("projector.vision_proj.",), "clip": ("projector.audio_proj.",)}


def set_learning(network: Av2tSam) -> list[tuple[str, nn.Parameter]]:
    """Leave gradients only to what learns, and return that.

    It is what the paper trains, less the parameters that no gradient reaches: the heads that
    predict IoU and object score, and the half of the projector that its kind does not use. The
    optimiser would skip these in any case, and processes that share gradients need not look for
    them in every step.
    """
    network.freeze_encoders()
    without = _NEVER_REACHED + _UNUSED_BY[network.config.projector]
    for name, parameter in network.trained_parameters():
        parameter.requires_grad_(not name.startswith(without))
    return [(n, p) for n, p in network.named_parameters() if p.requires_grad]


def set_recompute(network: Av2tSam, wanted: bool | None) -> None:
    """Let image encoder and BEiT-3 compute their activations anew; None: where it is large."""
    anew = not is_light(network) if wanted is None else wanted
    encoders: tuple[Any, ...] = (network.text_sam.image_encoder, network.text_sam.beit3.encoder)
    for encoder in encoders:
        encoder.gradient_checkpointing = anew
