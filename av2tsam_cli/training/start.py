"""The network that a training starts from, and the part of it that is trained."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.errors import UsageError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import load_network, part_of, read_config
from av2tsam_cli.hub.registry import BUNDLED_MODEL, TEXT_ONLY_MODELS
from av2tsam_cli.hub.tensor_file import TensorFile, read_metadata
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam, build_adapter, build_projector
from av2tsam_cli.model.config import LAION_CLAP, MICROSOFT_CLAP, PRESETS, ModelConfig
from av2tsam_cli.training.options import TrainOptions

CLAP_CONFIGS = {"laion": LAION_CLAP, "microsoft": MICROSOFT_CLAP}
PART_TITLES = {"clap": "CLAP", "projector": "projector", "adapter": "adapters"}
"""Names in messages of the parts that may not come from the checkpoint."""


@dataclass(frozen=True)
class StartingPoint:
    """The network that a training starts from, and where its weights come from."""

    network: Av2tSam = field(repr=False)
    """The network, on the CPU, in float32."""
    model: str | None = None
    """Name or path of the model; None for a network that was passed in."""
    checkpoint: Path | None = None
    """The file of the model."""
    left_out: tuple[str, ...] = ()
    """Parts of the checkpoint that are not used: `clap`, `projector`, `adapter`."""
    initialised: tuple[str, ...] = ()
    """Parts with new random weights: `projector`, `adapter`."""
    trained: str = ""
    """What the checkpoint was trained on before, such as "avsbench s4 to epoch 12"."""

    def __str__(self) -> str:
        """Describe in one line what was loaded, and what was initialised."""
        if self.model is None:
            return "starting from the network that was passed in"
        text = f"starting from {self.model}: all weights"
        if self.left_out:
            text += f" but {_titles(self.left_out)}"
        if self.trained:
            text += f", trained on {self.trained}"
        if self.initialised:
            text += f"; new {_titles(self.initialised)}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return what `run.json` stores about the starting point."""
        return {
            "model": self.model,
            "checkpoint": None if self.checkpoint is None else self.checkpoint.resolve(),
            "left_out": self.left_out,
            "initialised": self.initialised,
            "trained": self.trained or None,
        }


def _titles(parts: tuple[str, ...]) -> str:
    *others, last = (PART_TITLES[part] for part in parts)
    return f"{', '.join(others)} and {last}" if others else last


def load_starting_point(options: TrainOptions) -> StartingPoint:
    """Load or build the network on the CPU, in float32.

    A checkpoint with a projector is loaded with all of its weights. Without one, or with
    `init="paper"`, the result is what the paper starts from: a text-prompted SAM with its mask
    decoder and `text_hidden_fcs`, CLIP, CLAP, and a newly initialised projector and adapters (whose
    last layers are zero).

    Raises:
        UsageError: The options do not fit the model.
        WeightsError: Weights are missing or corrupted.
    """
    model = starting_model(options)
    path = locate.resolve(model)
    metadata = read_metadata(path)
    stored_config = read_config(path)
    present = {part_of(name) for name in TensorFile(path).tensors}
    keep_projector = "projector" in present and options.init == "auto"
    config = _requested_config(stored_config, options, keep_projector=keep_projector)
    used = {"projector", "adapter"} if config.adapter else {"projector"}
    kept = {"clip", "text_sam"}
    if config.clap == stored_config.clap:
        kept.add("clap")
    if keep_projector:
        kept |= present & used
    stored = load_network(path, dtype=torch.float32, parts=kept)
    network = Av2tSam(
        config=config,
        clip=stored.clip,
        clap=stored.clap if "clap" in kept else _installed_clap(config, path),
        projector=stored.projector if "projector" in kept else build_projector(config),
        adapter=stored.adapter if "adapter" in kept else build_adapter(config),
        text_sam=stored.text_sam,
    )
    return StartingPoint(
        network=network.eval(),
        model=model,
        checkpoint=path,
        left_out=tuple(part for part in PART_TITLES if part in present - kept),
        initialised=tuple(part for part in PART_TITLES if part in used - kept),
        trained=_earlier_training(metadata),
    )


def starting_model(options: TrainOptions) -> str:
    """Return the name or path of the model that the options select.

    The name of a full-size preset stands for its text-prompted SAM, as in the paper. The default is
    the best installed text-prompted SAM, else nano.
    """
    model = options.model
    if model is None:
        installed = (name for name in TEXT_ONLY_MODELS if locate.installed_path(name).is_file())
        return next(installed, BUNDLED_MODEL)
    return f"{model}-text" if model in PRESETS and model != BUNDLED_MODEL else model


def _earlier_training(metadata: Mapping[str, str]) -> str:
    """Return what a checkpoint was trained on, by its metadata; "" if it does not say."""
    try:
        data, metrics = (json.loads(metadata.get(key, "null")) for key in ("data", "metrics"))
        epoch = f" to epoch {metrics['epoch']}" if metrics else ""
        return f"{data['name']} {data['subset']}{epoch}" if data else ""
    except (ValueError, TypeError, LookupError, RecursionError):
        return "unknown data"


def _requested_config(
    stored: ModelConfig, options: TrainOptions, *, keep_projector: bool
) -> ModelConfig:
    """Return the checkpoint's configuration with the changes that the options request."""
    config = stored
    if options.clap is not None and options.clap != stored.clap.kind:
        config = replace(config, clap=CLAP_CONFIGS[options.clap])
    if options.projector is not None:
        config = replace(config, projector=options.projector)
    if options.adapter is not None:
        config = replace(config, adapter=options.adapter)
    if keep_projector:
        for option, requested, trained in (
            ("clap", config.clap.kind, stored.clap.kind),
            ("projector", config.projector, stored.projector),
        ):
            if requested != trained:
                raise UsageError(
                    f"`{option}` {requested}: the model's projector was trained with {trained}; "
                    "omit the option, or set `init` to paper for a new projector"
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
