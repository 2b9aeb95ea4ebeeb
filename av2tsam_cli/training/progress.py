"""How far a training is, its numbers so far, and who is told about them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from av2tsam_cli.evaluation.scoring import Scores

Done = Callable[[int, int], None]
"""Is told how many of how many are done."""


@dataclass(frozen=True)
class StepRow:
    """One step of the optimiser."""

    step: int
    """From 1, over the whole run."""
    epoch: int
    """From 1."""
    loss: float
    """Mean over the frames of the batch."""
    lr: float
    """Learning rate."""
    grad_norm: float
    """Length of the gradient before it was clipped."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch, or the part of one before `--max-steps`."""

    epoch: int
    """From 1."""
    step: int
    """Steps of the optimiser so far."""
    lr: float
    """Learning rate."""
    loss: float
    """Mean over the epoch's batches."""
    val_miou: float
    """On the validation split."""
    val_f_score: float
    """On the validation split, by AVSBench's protocol."""
    clips_per_s: float
    """Training videos per second of training, reading included."""
    train_s: float
    """Seconds of training."""
    val_s: float
    """Seconds of validation."""
    best: bool
    """Whether no epoch before was as good."""


@dataclass(frozen=True)
class Position:
    """Between which two steps a training is: all that is needed to go on from there."""

    epoch: int = 0
    """Epochs that are done."""
    batch: int = 0
    """Batches of the next one that are done."""
    step: int = 0
    """Steps of the optimiser in all."""
    loss_sum: float = 0.0
    """Of the epoch's batches so far."""
    clips: int = 0
    """Videos of the epoch so far."""
    train_s: float = 0.0
    """Seconds of the epoch so far."""
    rows: tuple[EpochRow, ...] = field(default=(), repr=False)
    """What was validated so far."""

    @property
    def best(self) -> EpochRow | None:
        """The epoch with the highest validation mIoU, the first of equals."""
        return max(self.rows, key=lambda row: row.val_miou, default=None)

    def after_batch(self, loss: float, clips: int, seconds: float) -> "Position":
        """One batch on."""
        return replace(
            self,
            batch=self.batch + 1,
            step=self.step + 1,
            loss_sum=self.loss_sum + loss,
            clips=self.clips + clips,
            train_s=self.train_s + seconds,
        )

    def validated(self, lr: float, scores: Scores, val_s: float) -> "Position":
        """With a row for what was trained of this epoch."""
        best = self.best
        row = EpochRow(
            epoch=self.epoch + 1,
            step=self.step,
            lr=lr,
            loss=self.loss_sum / max(self.batch, 1),
            val_miou=scores.miou,
            val_f_score=scores.f_score,
            clips_per_s=self.clips / self.train_s if self.train_s else 0.0,
            train_s=self.train_s,
            val_s=val_s,
            best=best is None or scores.miou > best.val_miou,
        )
        return replace(self, rows=(*self.rows, row))

    def next_epoch(self) -> "Position":
        """At the beginning of the next epoch."""
        return Position(epoch=self.epoch + 1, step=self.step, rows=self.rows)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Position":
        """Read `to_json`'s values."""
        return cls(**{**values, "rows": tuple(EpochRow(**row) for row in values["rows"])})


class Watcher(Protocol):
    """Is told how a training goes, in the process of rank 0 only."""

    def embedding(self, done: int, total: int) -> None:
        """So many of the videos whose embeddings were missing are embedded."""

    def epoch_begins(self, epoch: int, epochs: int, videos: int) -> None:
        """An epoch of so many videos begins; counted from 1."""

    def step(self, row: StepRow, videos: int) -> None:
        """A step was done; so many videos of the epoch are."""

    def validating(self, done: int, total: int) -> None:
        """So many videos of the validation split are scored."""

    def epoch_ends(self, row: EpochRow) -> None:
        """An epoch was trained, scored and saved."""


class Nobody:
    """A watcher that does not look."""

    def embedding(self, done: int, total: int) -> None:
        """See `Watcher`."""

    def epoch_begins(self, epoch: int, epochs: int, videos: int) -> None:
        """See `Watcher`."""

    def step(self, row: StepRow, videos: int) -> None:
        """See `Watcher`."""

    def validating(self, done: int, total: int) -> None:
        """See `Watcher`."""

    def epoch_ends(self, row: EpochRow) -> None:
        """See `Watcher`."""
