"""Everything that a training was asked to do, checked, and as JSON."""

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
    """What a training was asked to do. The defaults are the reference's training of the paper."""

    out: Path
    """The run folder."""
    data: str = DATA_NAME
    """`avsbench`, or the folder of a data set in its layout."""
    data_root: Path | None = None
    """Where AVSBench is; None: what the environment says, or `./avsbench_data`."""
    subset: Subset = "s4"
    """`s4`, `ms3` or `avss`."""
    train_clips: int | None = None
    """Train on so many videos, drawn by the seed; None: on all."""
    model: str | None = None
    """Where the weights start: a model's name or a checkpoint; None: the best installed."""
    init: Init = "fresh"
    """`fresh`: projector and adapters start anew, as in the paper. `model`: with its weights."""
    clap: ClapKind | None = None
    """Which CLAP hears; None: the model's own."""
    projector: ProjectorKind | None = None
    """What becomes the feature; None: as in the model."""
    adapter: bool | None = None
    """Whether the image encoder is told the feature; None: as in the model."""
    epochs: int = 40
    """Passes over the training videos, which also set the schedule."""
    batch_size: int = 8
    """Videos per step of the optimiser, over all devices and parts."""
    lr: float = 2e-4
    """Learning rate of the first epoch."""
    min_lr: float = 1e-7
    """Learning rate that the cosine would reach after the last epoch."""
    clip_norm: float | None = None
    """Largest length of the gradient; None: whatever it is."""
    seed: int = 123
    """Decides fresh weights and the order of the videos."""
    precision: str = "auto"
    """`auto`, `fp32`, `bf16` or `fp16`; the latter two mixed with fp32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    devices: int = 1
    """Processes, each with a device of its own. `torchrun` overrules it."""
    accumulate: int = 1
    """Parts that each process takes its share of a batch in, for less memory."""
    recompute: bool | None = None
    """Compute activations anew in the backward pass; None: where the network is large."""
    max_steps: int | None = None
    """Stop after so many steps of the optimiser; None: after the last epoch."""
    workers: int | None = None
    """Threads that read the data; None: up to four."""
    skip_bad: bool = False
    """Leave damaged videos out instead of stopping."""
    cache: Path | None = None
    """Folder of the embeddings; None: that of all runs."""
    cache_features: bool = False
    """Keep the frozen image features too, where there are no adapters."""
    wandb: bool = False
    """Report to Weights & Biases as well."""
    resume: bool = False
    """Go on with an interrupted run."""
    overwrite: bool = False
    """Replace a run of the same name."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: It names the option.
        """
        for name in ("epochs", "batch_size", "devices", "accumulate", *_OPTIONAL_COUNTS):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{flag(name)} {value}: give a whole number above 0")
        if self.subset not in SUBSETS:
            raise UsageError(f"--subset {self.subset}: use one of {', '.join(SUBSETS)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"--lr {self.lr}: give a rate above 0, such as 2e-4")
        if not 0 <= self.min_lr <= self.lr:
            raise UsageError(f"--min-lr {self.min_lr}: give a rate from 0 to --lr ({self.lr})")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"--clip-norm {self.clip_norm}: give a length above 0, such as 1")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite do not go together; pass one of them")
        if self.cache_features and self.adapter:
            raise UsageError("--cache-features needs --no-adapter: adapters change the features")

    def learning_rate(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0: a cosine that changes between epochs."""
        share = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.min_lr + (self.lr - self.min_lr) * share

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainOptions":
        """Read `to_json`'s values.

        Raises:
            MediaError: They are of another version.
        """
        known = {field.name for field in fields(cls)}
        if strangers := sorted(values.keys() - known):
            raise MediaError(f"the run was made by another version: {', '.join(strangers)}")
        paths = {k: Path(values[k]) for k in _PATHS if values.get(k) is not None}
        return cls(**{**values, **paths})

    def check_continues(self, begun: "TrainOptions") -> None:
        """Refuse to go on with a run in another way than it was begun.

        Raises:
            UsageError: An option that decides the result differs.
        """
        for name in RESULT_OPTIONS:
            ours, theirs = getattr(self, name), getattr(begun, name)
            if ours != theirs:
                raise UsageError(
                    f"{flag(name)} {ours}: the run in {self.out} was begun with {theirs}; leave "
                    "the option out, or train into another --out"
                )


_OPTIONAL_COUNTS = ("train_clips", "max_steps", "workers")
_PATHS = ("out", "data_root", "cache")
RESULT_OPTIONS = (
    "subset", "train_clips", "model", "init", "clap", "projector", "adapter",
    "epochs", "batch_size", "lr", "min_lr", "clip_norm", "seed", "precision",
)  # fmt: skip
"""What decides the result of a run, and cannot change while it goes on."""


def flag(name: str) -> str:
    """An option as it is typed on the command line."""
    return f"--{name.replace('_', '-')}"
