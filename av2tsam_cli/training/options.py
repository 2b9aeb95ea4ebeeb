"""The options of a training, and its learning-rate schedule."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from av2tsam_cli.data.avsbench import DATA_NAME, SUBSETS, Subset
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.model.config import ProjectorKind

ClapKind = Literal["laion", "microsoft"]
Init = Literal["fresh", "model"]


@dataclass(frozen=True)
class TrainOptions:
    """The options of a training. The defaults are those of the paper's code."""

    out: Path
    """The run folder."""
    resume: bool = False
    """Continue the interrupted run in `out`."""
    overwrite: bool = False
    """Replace an existing run in `out`."""
    data: str = DATA_NAME
    """`avsbench`, or a folder in its layout."""
    data_root: Path | None = None
    """Folder that contains AVSBench; None for $AVSBENCH_ROOT, else `./avsbench_data`."""
    subset: Subset = "s4"
    """`s4`, `ms3` or `avss`."""
    train_clips: int | None = None
    """Number of training videos, chosen by the seed; None for all."""
    skip_bad: bool = False
    """Skip damaged videos instead of stopping."""
    cache: Path | None = None
    """Folder for embeddings; None for the one that all runs share."""
    cache_features: bool = False
    """Cache the frozen image features too, which needs a model without adapters."""
    model: str | None = None
    """Name or checkpoint of the model to start from; None for the best installed one."""
    init: Init = "fresh"
    """`fresh`: initialise projector and adapters as in the paper. `model`: keep the model's."""
    clap: ClapKind | None = None
    """CLAP encoder; None for the model's own."""
    projector: ProjectorKind | None = None
    """Embeddings that become text tokens; None for the model's own choice."""
    adapter: bool | None = None
    """Whether the image encoder has adapters; None for the model's own choice."""
    epochs: int = 40
    """Passes over the training videos; the learning-rate schedule depends on it."""
    batch_size: int = 8
    """Videos per optimiser step, over all devices and accumulation parts."""
    accumulate: int = 1
    """Parts into which each process divides its share of a batch (gradient accumulation)."""
    lr: float = 2e-4
    """Learning rate of the first epoch."""
    min_lr: float = 1e-7
    """Learning rate at the end of the cosine schedule."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; None for no clipping."""
    seed: int = 123
    """Seed of the initialisation, of the order of videos and of `train_clips`."""
    max_steps: int | None = None
    """Optimiser steps after which to stop; None to train all epochs."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    devices: int = 1
    """Number of processes, each with its own device; torchrun's setting takes precedence."""
    precision: str = "auto"
    """`auto`, `fp32`, or `bf16` or `fp16` mixed with fp32."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass to save memory; None: for large networks."""
    workers: int | None = None
    """Threads that read the data; None for one per core, at most 4."""
    wandb: bool = False
    """Report to Weights & Biases as well."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: One is invalid; the message names it.
        """
        for name in ("epochs", "batch_size", "devices", "accumulate", *_OPTIONAL_COUNTS):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` must be 1 or more, not {value}")
        if self.subset not in SUBSETS:
            raise UsageError(f"unknown `subset` {self.subset!r}; use one of {', '.join(SUBSETS)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"`lr` must be above 0, such as 2e-4, not {self.lr:g}")
        if not 0 <= self.min_lr <= self.lr:
            raise UsageError(
                f"`min_lr` must be between 0 and `lr` ({self.lr:g}), not {self.min_lr:g}"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"`clip_norm` must be above 0, such as 1, not {self.clip_norm:g}")
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` exclude each other; use one of them")
        if self.cache_features and self.adapter:
            raise UsageError(
                "`cache_features` needs a model without adapters, which change the image "
                "features; disable `adapter`"
            )

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, from 0: a cosine that changes between epochs."""
        cosine = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.min_lr + (self.lr - self.min_lr) * cosine

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainOptions":
        """Read the values that `to_json` returned.

        Raises:
            MediaError: They are from another version.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise MediaError(
                f"{values.get('out')}: the run is from another version of av2tsam, with the "
                f"options {', '.join(unknown)}; resume it with that version"
            )
        paths = {k: Path(values[k]) for k in _PATHS if values.get(k) is not None}
        return cls(**{**values, **paths})

    def check_resumes(self, original: "TrainOptions") -> None:
        """Check that a resumed run has the options that it was started with.

        Raises:
            UsageError: An option that affects the result differs.
        """
        for name in RESULT_OPTIONS:
            new, old = getattr(self, name), getattr(original, name)
            if new != old:
                raise UsageError(
                    f"`{name}` {new}: the run in {self.out} was started with {old}; omit the "
                    "option, or set `out` to a new folder"
                )


_OPTIONAL_COUNTS = ("train_clips", "max_steps", "workers")
_PATHS = ("out", "data_root", "cache")
RESULT_OPTIONS = (
    "subset", "train_clips", "model", "init", "clap", "projector", "adapter",
    "epochs", "batch_size", "lr", "min_lr", "clip_norm", "seed", "precision",
)  # fmt: skip
"""Options that affect the result of a run, and so cannot change when it is resumed."""
