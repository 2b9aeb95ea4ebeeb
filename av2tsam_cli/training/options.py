"""The options of a training, and its learning-rate schedule."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.options import (
    Cache,
    Data,
    DataRoot,
    Device,
    Devices,
    Option,
    Panel,
    Precision,
    SkipBad,
    Strict,
    SubsetOption,
    check_values,
)


@dataclass(frozen=True)
class TrainOptions:
    """The options of a training. The defaults are those of the paper's code."""

    out: Annotated[
        Path, Option("run folder to create", panel=Panel.OUTPUT, metavar="RUN", short="-o")
    ]
    """The run folder."""
    resume: Annotated[
        bool,
        Option("continue the interrupted run in --out, with its options", panel=Panel.OUTPUT),
    ] = False
    """Whether to continue the interrupted run in `out`."""
    overwrite: Annotated[bool, Option("replace an existing run", panel=Panel.OUTPUT)] = False
    """Whether to replace an existing run in `out`."""
    wandb: Annotated[bool, Option("report to Weights & Biases", panel=Panel.OUTPUT)] = False
    """Whether to report to Weights & Biases as well."""
    data: Data = "avsbench"
    """`avsbench`, or a folder in its layout."""
    data_root: DataRoot = None
    """Folder that contains AVSBench; None for $AVSBENCH_ROOT, else `./avsbench_data`."""
    subset: SubsetOption = "s4"
    """`s4`, `ms3` or `avss`."""
    train_clips: Annotated[
        int | None,
        Option(
            "train on N videos, chosen by the seed",
            panel=Panel.DATA,
            metavar="N",
            default="all",
            minimum=1,
        ),
    ] = None
    """Number of training videos, chosen by the seed; None for all."""
    skip_bad: SkipBad = False
    """Whether to skip damaged videos instead of stopping."""
    strict: Strict = False
    """Whether to stop instead of using raw videos in place of missing frames or WAV files."""
    cache: Cache = None
    """Folder for embeddings; None for the one that all runs share."""
    cache_features: Annotated[
        bool,
        Option(
            "cache the image encoder's features too, which is much faster but takes much disk "
            "space; needs --no-adapter",
            panel=Panel.DATA,
        ),
    ] = False
    """Whether to cache the frozen image features too, which needs a model without adapters."""
    model: Annotated[
        str | None,
        Option(
            "model to start from: a checkpoint file, nano, or evf-sam or evf-sam2, which stand for "
            "their text-prompted SAM",
            panel=Panel.MODEL,
            metavar="NAME|FILE",
            short="-m",
            default="the best installed text-prompted SAM, else nano",
        ),
    ] = None
    """Name or checkpoint of the model to start from; None for the best installed text-prompted SAM,
    else nano."""
    init: Annotated[
        Literal["auto", "paper"],
        Option(
            "auto: continue from all weights of a model that has a projector, such as a trained "
            "checkpoint or nano; else, or with paper, projector and adapters start from random "
            "weights, as in the paper",
            panel=Panel.MODEL,
        ),
    ] = "auto"
    """`auto`: keep the model's projector and adapters if it has them. `paper`: new ones."""
    clap: Annotated[
        Literal["laion", "microsoft"] | None,
        Option("audio encoder", panel=Panel.MODEL, default="the model's"),
    ] = None
    """CLAP encoder; None for the model's own."""
    projector: Annotated[
        Literal["mul", "clap", "clip"] | None,
        Option(
            "embeddings to project to text tokens: the product of CLIP and CLAP, or one of them",
            panel=Panel.MODEL,
            default="the model's, usually mul",
        ),
    ] = None
    """Embeddings that become text tokens; None for the model's own choice."""
    adapter: Annotated[
        bool | None,
        Option("train adapters in the image encoder", panel=Panel.MODEL, default="as in the model"),
    ] = None
    """Whether the image encoder has adapters; None for the model's own choice."""
    device: Device = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    devices: Devices = 1
    """Number of processes, each with its own device; torchrun's setting takes precedence."""
    epochs: Annotated[
        int,
        Option("passes over the training videos", panel=Panel.TRAINING, metavar="N", minimum=1),
    ] = 40
    """Passes over the training videos; the learning-rate schedule depends on it."""
    batch_size: Annotated[
        int,
        Option(
            "videos per optimiser step, over all devices",
            panel=Panel.TRAINING,
            metavar="N",
            minimum=1,
        ),
    ] = 8
    """Videos per optimiser step, over all devices and accumulation parts."""
    accumulate: Annotated[
        int,
        Option(
            "gradient accumulation: process each batch in K parts, to save memory",
            panel=Panel.TRAINING,
            metavar="K",
            minimum=1,
        ),
    ] = 1
    """Parts into which each process divides its share of a batch (gradient accumulation)."""
    lr: Annotated[
        float, Option("learning rate of the first epoch", panel=Panel.TRAINING, metavar="RATE")
    ] = 2e-4
    """Learning rate of the first epoch."""
    min_lr: Annotated[
        float,
        Option(
            "learning rate at the end of the cosine schedule",
            panel=Panel.TRAINING,
            metavar="RATE",
        ),
    ] = 1e-7
    """Learning rate at the end of the cosine schedule."""
    warmup: Annotated[
        int,
        Option(
            "optimiser steps in which the learning rate rises to the schedule",
            panel=Panel.TRAINING,
            metavar="STEPS",
            default="none",
            minimum=0,
        ),
    ] = 0
    """Optimiser steps in which the learning rate rises linearly to the schedule; 0 for none."""
    weight_decay: Annotated[
        float, Option("weight decay of AdamW", panel=Panel.TRAINING, metavar="DECAY")
    ] = 0.01
    """Weight decay of AdamW."""
    clip_norm: Annotated[
        float | None,
        Option(
            "clip gradients to this L2 norm", panel=Panel.TRAINING, metavar="NORM", default="off"
        ),
    ] = None
    """Largest L2 norm of the gradient; None for no clipping."""
    ema: Annotated[
        float | None,
        Option(
            "validate and save an exponential moving average of the weights, such as 0.999",
            panel=Panel.TRAINING,
            metavar="DECAY",
            default="off",
        ),
    ] = None
    """Decay per step of the average of the trained weights, which is validated and saved in place
    of the weights; None for no average."""
    augment: Annotated[
        bool,
        Option(
            "flip training videos horizontally and change their colours at random",
            panel=Panel.TRAINING,
        ),
    ] = False
    """Whether to flip training videos horizontally and change their colours at random."""
    val_every: Annotated[
        int,
        Option("validate every N epochs", panel=Panel.TRAINING, metavar="N", minimum=1),
    ] = 1
    """Epochs between validations; the last epoch is always validated."""
    patience: Annotated[
        int | None,
        Option(
            "stop after N validations without a higher mIoU",
            panel=Panel.TRAINING,
            metavar="N",
            default="off",
            minimum=1,
        ),
    ] = None
    """Validations without a higher mIoU after which to stop; None to train all epochs."""
    test: Annotated[
        bool,
        Option(
            "score the best epoch on the test split at the end",
            panel=Panel.TRAINING,
            default="on",
        ),
    ] = True
    """Whether to score the best epoch on the test split at the end."""
    seed: Annotated[
        int,
        Option(
            "seed of the initial weights, the order of videos and --augment",
            panel=Panel.TRAINING,
            metavar="S",
            minimum=0,
        ),
    ] = 123
    """Seed of the initialisation, the order of videos, `train_clips` and `augment`."""
    max_steps: Annotated[
        int | None,
        Option(
            "stop after N optimiser steps in total",
            panel=Panel.TRAINING,
            metavar="N",
            default="after all epochs",
            minimum=1,
        ),
    ] = None
    """Optimiser steps after which to stop; None to train all epochs."""
    precision: Precision = "auto"
    """`auto`, `fp32`, or `bf16` or `fp16` mixed with fp32."""
    deterministic: Annotated[
        bool,
        Option(
            "use deterministic algorithms only, which may be slower: the same seed then gives "
            "identical results on the same machine",
            panel=Panel.ADVANCED,
        ),
    ] = False
    """Whether to use deterministic algorithms only."""
    gradient_checkpointing: Annotated[
        bool | None,
        Option(
            "recompute the encoders' activations in the backward pass: less memory, but slower",
            panel=Panel.ADVANCED,
            default="on for large networks",
        ),
    ] = None
    """Whether to recompute activations in the backward pass; None: for large networks."""
    workers: Annotated[
        int | None,
        Option(
            "threads that read the data",
            panel=Panel.ADVANCED,
            metavar="N",
            default="one per core, at most 4",
            minimum=1,
        ),
    ] = None
    """Threads that read the data; None for one per core, at most 4."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: One is invalid; the message names it.
        """
        check_values(self)
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"`lr` must be above 0, such as 2e-4, not {self.lr:g}")
        if not 0 <= self.min_lr <= self.lr:
            raise UsageError(
                f"`min_lr` must be between 0 and `lr` ({self.lr:g}), not {self.min_lr:g}"
            )
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(
                f"`weight_decay` must be 0 or more, such as 0.01, not {self.weight_decay:g}"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"`clip_norm` must be above 0, such as 1, not {self.clip_norm:g}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"`ema` must be between 0 and 1, such as 0.999, not {self.ema:g}")
        if self.resume and self.overwrite:
            raise UsageError("`resume` and `overwrite` exclude each other; pass one of them")
        if self.cache_features and self.adapter:
            raise UsageError(
                "`cache_features` works only without `adapter`: adapters change the image features"
            )

        if self.cache_features and self.augment:
            raise UsageError(
                "`cache_features` and `augment` exclude each other: the features of changed frames "
                "are not in the cache; pass one of them"
            )

    def learning_rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of a step: a cosine that changes between epochs, after a warmup.

        Args:
            epoch: The step's epoch, from 0.
            step: Number of earlier steps in the whole run.
        """
        cosine = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        warmup = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warmup * (self.min_lr + (self.lr - self.min_lr) * cosine)

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


_PATHS = ("out", "data_root", "cache")
RESULT_OPTIONS = (
    "subset", "train_clips", "model", "init", "clap", "projector", "adapter",
    "epochs", "batch_size", "lr", "min_lr", "warmup", "weight_decay", "clip_norm", "val_every",
    "patience", "ema", "augment", "deterministic", "seed", "precision",
)  # fmt: skip
"""Options that affect the result of a run, and so cannot change when it is resumed."""
