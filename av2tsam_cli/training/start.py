"""The network that a training starts from, and the part of it that is trained."""

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

CLAP_CONFIGS = {"laion": LAION_CLAP, "microsoft": MICROSOFT_CLAP}

log = logging.getLogger(__name__)


def starting_network(options: TrainOptions) -> Av2tSam:
    """Load or build the network on the CPU, in float32.

    With `init="fresh"` the result is what the paper starts from: a text-prompted SAM with its mask
    decoder and `text_hidden_fcs`, CLIP, CLAP, and a newly initialised projector and adapters (whose
    last layers are zero). The model's own projector and adapters, if any, are not loaded.

    Raises:
        UsageError: The options do not fit the model.
        WeightsError: Weights are missing or corrupted.
    """
    path = starting_checkpoint(options)
    stored_config = ModelConfig.from_json(read_metadata(path)["config"])
    config = _requested_config(stored_config, options)
    same_clap = config.clap == stored_config.clap
    keep_projector = options.init == "model"
    keep_adapter = keep_projector and stored_config.adapter and config.adapter
    optional = {"clap": same_clap, "projector": keep_projector, "adapter": keep_adapter}
    parts = ["clip", "text_sam", *(part for part, is_loaded in optional.items() if is_loaded)]
    stored = load_network(path, dtype=torch.float32, parts=parts)
    network = Av2tSam(
        config=config,
        clip=stored.clip,
        clap=stored.clap if same_clap else _installed_clap(config, path),
        projector=stored.projector if keep_projector else build_projector(config),
        adapter=stored.adapter if keep_adapter else build_adapter(config),
        text_sam=stored.text_sam,
    )
    return network.eval()


def starting_checkpoint(options: TrainOptions) -> Path:
    """Return the checkpoint of `options.model`.

    With `init="fresh"`, the name of a preset stands for its text-prompted SAM.

    Raises:
        WeightsError: The model is not installed, or the file does not exist.
    """
    model = options.model
    if options.init == "fresh" and model in PRESETS and model != BUNDLED_MODEL:
        model = f"{model}-text"
    if options.init == "fresh" and model is None:
        installed = (name for name in TEXT_ONLY_MODELS if locate.installed_path(name).is_file())
        model = next(installed, BUNDLED_MODEL)
    path = locate.resolve(model)
    if options.model is None:
        log.warning("starting from %s; use `model` to choose another one", path.stem)
    return path


def _requested_config(stored: ModelConfig, options: TrainOptions) -> ModelConfig:
    """Return the checkpoint's configuration with the changes that the options request."""
    config = stored
    if options.clap is not None and options.clap != stored.clap.kind:
        config = replace(config, clap=CLAP_CONFIGS[options.clap])
    if options.projector is not None:
        config = replace(config, projector=options.projector)
    if options.adapter is not None:
        config = replace(config, adapter=options.adapter)
    if options.init == "model":
        for option, requested, trained in (
            ("clap", config.clap.kind, stored.clap.kind),
            ("projector", config.projector, stored.projector),
        ):
            if requested != trained:
                raise UsageError(
                    f"`{option}` {requested}: the model's projector was trained with {trained}; "
                    "omit the option, or set `init` to fresh"
                )
    if options.cache_features and config.adapter:
        raise UsageError(
            "`cache_features` works only without `adapter`: adapters change the image features"
        )
    return config


def _installed_clap(config: ModelConfig, checkpoint: Path) -> ClapEmbedder:
    """Load a CLAP that differs from the checkpoint's, from its own file."""
    path = locate.part_file(config, "clap", checkpoint)
    return load_network(path, dtype=torch.float32, parts=("clap",)).clap


# Trained by the paper in name only: no gradient of the loss reaches these heads, whose outputs
# only serve to choose among masks 1 to 3.
_WITHOUT_GRADIENT = (
    "text_sam.mask_decoder.iou_prediction_head.",
    "text_sam.mask_decoder.pred_obj_score_head.",
)
_UNUSED_BY_PROJECTOR = {
    "mul": (),
    "clap": ("projector.vision_proj.",),
    "clip": ("projector.audio_proj.",),
}


def freeze_untrained(network: Av2tSam) -> list[tuple[str, nn.Parameter]]:
    """Freeze everything but the trained parameters, and return these with their names.

    They are the ones that the paper trains, except those that no gradient reaches: the heads that
    predict IoU and object score, and the half of the projector that its kind does not use. The
    optimiser would skip them anyway; without them, processes that exchange gradients need not
    search for unused parameters in every step.
    """
    network.freeze_encoders()
    frozen = _WITHOUT_GRADIENT + _UNUSED_BY_PROJECTOR[network.config.projector]
    for name, parameter in network.trained_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    return [(n, p) for n, p in network.named_parameters() if p.requires_grad]


def set_gradient_checkpointing(network: Av2tSam, enabled: bool | None) -> None:
    """Switch gradient checkpointing of the image encoder and BEiT-3 on or off.

    Args:
        network: The network.
        enabled: None enables it for large networks.
    """
    if enabled is None:
        enabled = not is_light(network)
    encoders: tuple[Any, ...] = (network.text_sam.image_encoder, network.text_sam.beit3.encoder)
    for encoder in encoders:
        encoder.gradient_checkpointing = enabled
