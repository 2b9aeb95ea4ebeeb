"""The state of a training: how far it is, its results so far, and the tensors to resume from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.callback import EpochRow
from av2tsam_cli.training.learner import BatchResult, Learner
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.validation import SplitScores

MODEL, OPTIMISER, AVERAGE, RANDOM = "model:", "optimiser:", "average:", "random:"
"""Prefixes of the tensors' names in `resume.safetensors`."""


@dataclass(frozen=True)
class TrainingState:
    """The position between two optimiser steps, and the results up to it."""

    epoch: int = 0
    """Completed epochs."""
    batch: int = 0
    """Completed batches of the current epoch."""
    step: int = 0
    """Optimiser steps so far."""
    loss_sum: float = 0.0
    """Sum of the losses of the current epoch's batches."""
    miou_sum: float = 0.0
    """Sum of the mIoU of the current epoch's videos so far."""
    f_score_sum: float = 0.0
    """Sum of the F-scores of the current epoch's videos so far."""
    clips: int = 0
    """Videos of the current epoch so far."""
    train_s: float = 0.0
    """Seconds of training in the current epoch so far."""
    rows: tuple[EpochRow, ...] = field(default=(), repr=False)
    """Results of the validated epochs."""

    @property
    def best(self) -> EpochRow | None:
        """The epoch with the highest validation mIoU, the first one of several.

        Part of an epoch is the best only if no epoch is complete.
        """
        return max(self.rows, key=lambda row: (row.complete, row.val_miou), default=None)

    def has_reached_max_steps(self, options: TrainOptions) -> bool:
        """Return whether `max_steps` stops the training here."""
        return options.max_steps is not None and self.step >= options.max_steps

    def is_stopped_early(self, options: TrainOptions) -> bool:
        """Return whether `patience` validations in a row were not better than the best one."""
        if options.patience is None or self.best is None:
            return False
        return len(self.rows) - 1 - self.rows.index(self.best) >= options.patience

    def is_finished(self, options: TrainOptions) -> bool:
        """Return whether nothing is left to train or to validate."""
        is_validated = bool(self.rows) and self.rows[-1].step == self.step
        is_stopped = is_validated and self.has_reached_max_steps(options)
        return self.epoch >= options.epochs or is_stopped or self.is_stopped_early(options)

    def after_batch(self, batch: BatchResult, clips: int, seconds: float) -> "TrainingState":
        """Return the state after one more batch."""
        return replace(
            self,
            batch=self.batch + 1,
            step=self.step + 1,
            loss_sum=self.loss_sum + batch.loss,
            miou_sum=self.miou_sum + batch.miou * clips,
            f_score_sum=self.f_score_sum + batch.f_score * clips,
            clips=self.clips + clips,
            train_s=self.train_s + seconds,
        )

    def after_validation(
        self, lr: float, scored: SplitScores, val_s: float, *, complete: bool
    ) -> "TrainingState":
        """Return the state with a row for the epoch, or for the part of it that was trained.

        It replaces the row of a smaller part of the same epoch.
        """
        earlier = replace(self, rows=tuple(row for row in self.rows if row.epoch <= self.epoch))
        best, scores = earlier.best, scored.scores
        row = EpochRow(
            epoch=self.epoch + 1,
            step=self.step,
            lr=lr,
            loss=self.loss_sum / max(self.batch, 1),
            train_miou=self.miou_sum / max(self.clips, 1),
            train_f_score=self.f_score_sum / max(self.clips, 1),
            val_loss=scored.loss,
            val_miou=scores.miou,
            val_f_score=scores.f_score,
            clips_per_s=self.clips / self.train_s if self.train_s else 0.0,
            train_s=self.train_s,
            val_s=val_s,
            complete=complete,
            best=best is None or (complete and scores.miou > best.val_miou),
        )
        return replace(self, rows=(*earlier.rows, row))

    def next_epoch(self) -> "TrainingState":
        """Return the state at the start of the next epoch."""
        return TrainingState(epoch=self.epoch + 1, step=self.step, rows=self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingState":
        """Read the values that `to_json` returned.

        Raises:
            TypeError: A value is missing, unknown or no number.
            ValueError: A count is negative.
        """
        state = cls(**{**values, "rows": tuple(EpochRow(**row) for row in values["rows"])})
        counts = (state.epoch, state.batch, state.step, state.clips)
        if not all(type(count) is int for count in counts):
            raise TypeError("its position is no whole number")
        if min(counts) < 0:
            raise ValueError("its position is negative")
        sums = (state.loss_sum, state.miou_sum, state.f_score_sum, state.train_s)
        if not all(isinstance(value, int | float) for value in sums):
            raise TypeError("its sums are no numbers")
        return state


def collect_tensors(learner: Learner) -> dict[str, Tensor]:
    """Return weights and averages, the optimiser's state and the random generators', by name."""
    trained = learner.network.trained_parameters()
    tensors: dict[str, Tensor] = {MODEL + name: parameter for name, parameter in trained}
    for name, parameter in learner.parameters:
        for key, value in learner.optimiser.state[parameter].items():
            tensors[f"{OPTIMISER}{key}:{name}"] = value
    if learner.average is not None:
        tensors |= {AVERAGE + name: tensor for name, tensor in learner.average.tensors.items()}
    tensors[f"{RANDOM}cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[f"{RANDOM}cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_weights(tensors: Mapping[str, Tensor], network: Av2tSam, prefix: str = "") -> None:
    """Copy the trained weights, whose names may have a prefix, into a network."""
    with torch.no_grad():
        for name, parameter in network.trained_parameters():
            parameter.copy_(tensors[prefix + name])


def restore_tensors(tensors: Mapping[str, Tensor], learner: Learner) -> None:
    """Restore what `collect_tensors` returned."""
    restore_weights(tensors, learner.network, MODEL)
    if learner.average is not None:
        for name, average in learner.average.tensors.items():
            average.copy_(tensors[AVERAGE + name])
    optimiser = learner.optimiser
    indices = {name: index for index, (name, _) in enumerate(learner.parameters)}
    optimiser_state: dict[int, dict[str, Tensor]] = {}
    for prefixed, tensor in tensors.items():
        if prefixed.startswith(OPTIMISER):
            key, name = prefixed.removeprefix(OPTIMISER).split(":")
            optimiser_state.setdefault(indices[name], {})[key] = tensor
    # `load_state_dict` moves the state to the parameters' device.
    optimiser.load_state_dict({**optimiser.state_dict(), "state": optimiser_state})
    torch.set_rng_state(tensors[f"{RANDOM}cpu"])
    if torch.cuda.is_available() and f"{RANDOM}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{RANDOM}cuda"])
