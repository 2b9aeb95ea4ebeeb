"""Train on AVSBench with the losses and the schedule of the paper's code.

A batch is a number of videos with all their labelled seconds. How it is divided among processes
and accumulation parts changes memory and speed but, apart from rounding, not the result.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import ReadSample, Sample, epoch_batches, prefetch, shard
from av2tsam_cli.errors import Av2tsamError, Interrupted, MediaError, UsageError
from av2tsam_cli.hub.tensor_file import read_metadata
from av2tsam_cli.inference.device import choose_device, choose_precision
from av2tsam_cli.inference.distributed import (
    ConnectionLost,
    Processes,
    any_process,
    connection_errors,
    require_fabric,
    start_fabric,
    start_processes,
)
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.signals import handle_signals
from av2tsam_cli.training.augmentation import read_augmented
from av2tsam_cli.training.callback import EpochRow, StepRow, TrainingCallback
from av2tsam_cli.training.determinism import deterministic_algorithms
from av2tsam_cli.training.learner import Learner
from av2tsam_cli.training.loggers import MetricsLogger, check_wandb, log_epoch, open_loggers
from av2tsam_cli.training.options import RESULT_OPTIONS, TrainOptions
from av2tsam_cli.training.record import (
    checkpoint_metadata,
    digest_weights,
    run_record,
    utc_now,
)
from av2tsam_cli.training.result import FinalScores, TrainResult, training_result
from av2tsam_cli.training.run_folder import (
    RECORD,
    RunFolder,
    corruption_errors,
    open_folder,
    read_record,
    read_tensors,
)
from av2tsam_cli.training.start import StartingPoint, load_starting_point
from av2tsam_cli.training.state import (
    TrainingState,
    collect_tensors,
    restore_tensors,
    restore_weights,
)
from av2tsam_cli.training.validation import SplitScores, rounds, score_split
from av2tsam_cli.training.videos import Videos, embed_videos, find_videos
from av2tsam_cli.values import Progress

if TYPE_CHECKING:
    from lightning_fabric.fabric import Fabric

log = logging.getLogger(__name__)

SAVE_INTERVAL_S = 600.0
"""Seconds after which the state is saved within an epoch, in case the machine fails."""
EXAMPLES = 4
"""Validation videos whose masks the loggers show."""
MAX_READER_THREADS = 4
"""Upper limit of the default number of threads that read the data."""


def train(
    options: TrainOptions,
    callback: TrainingCallback | None = None,
    network: Av2tSam | None = None,
) -> TrainResult:
    """Train a model. Seeds PyTorch's random generators.

    Args:
        options: The options of the run.
        callback: Receives progress and results, in the process of rank 0.
        network: The network to start from, instead of the one that the options name; on the CPU,
            in float32. It may be any network with the parts and the `forward` of `Av2tSam`. It is
            trained in place, and at the end has the weights of the best epoch if these were scored
            on the test split, else those of the last step.

    Raises:
        UsageError: The options do not fit together, the model, the data or the run folder.
        MediaError: The data cannot be read, or the run folder is in use or cannot be written.
        WeightsError: The model to start from is missing or corrupted.
        Interrupted: SIGINT or SIGTERM was received; the run can be resumed.
        OtherProcessFailed: Another process of this training failed.
        ConnectionLost: Another process has ended unexpectedly; the run can be resumed.
        Av2tsamError: The loss or the gradient is not finite, or a package is not installed.
    """
    require_fabric()
    device = choose_device(options.device)
    processes = start_processes(device.type, options.devices)
    with ExitStack() as stack:
        stack.enter_context(connection_errors())
        folder: RunFolder | None = None
        with processes.together():
            videos = find_videos(options)
            if processes.first:
                check_wandb(wanted=options.wandb)
                folder = stack.enter_context(open_folder(options))
            torch.manual_seed(options.seed)
            start = load_starting_point(options) if network is None else StartingPoint(network)
        if options.deterministic:
            stack.enter_context(deterministic_algorithms())
        precision: Any = choose_precision(options.precision, device)
        fabric = start_fabric(device.type, options.devices, precision)
        if not options.resume:
            is_default = network is None and options.model is None
            hint = "; use `model` to choose another one" if is_default else ""
            log.warning("%s%s", start, hint)
        options = replace(options, precision=precision, model=options.model or start.model)
        training = _Training(
            options,
            callback or TrainingCallback(),
            fabric=fabric,
            processes=processes,
            start=start,
            folder=folder,
        )
        training.prepare(videos)
        stack.callback(training.close_loggers)
        return training.run()


class _Training:
    """One training, from the start or resumed."""

    def __init__(
        self,
        options: TrainOptions,
        callback: TrainingCallback,
        *,
        fabric: "Fabric",
        processes: Processes,
        start: StartingPoint,
        folder: RunFolder | None,
    ) -> None:
        self.options = options
        self.fabric = fabric
        self.processes = processes
        self.start = start
        self.weights = digest_weights(start.network)
        self.network = start.network.eval()  # without dropout, BatchNorm's statistics are fixed
        self.folder = folder  # None in all processes but the first
        self.callback = callback if folder is not None else TrainingCallback()
        self.stop_requested = False
        self.state = TrainingState()
        self.loggers: list[MetricsLogger] = []
        self.last_save_s = time.monotonic()

    def prepare(self, videos: Videos) -> None:
        """Embed the videos, create the optimiser, restore a resumed run, and open its files."""
        self.network.to(self.fabric.device)
        with self.processes.together() as keep_contact:

            def report(done: int, total: int) -> None:
                keep_contact()
                self.callback.on_embedding(done, total)

            self.videos, self.read = embed_videos(videos, self.network, self.options, report)
        self._check_same()
        self.learner = Learner(self.network, self.options, self.fabric)
        if self.options.resume:
            self._restore()
        with self.processes.together():
            if self.folder is not None:
                self._open_files(self.folder)

    def _check_same(self) -> None:
        """Check that all processes do the same.

        Raises:
            UsageError: They have other options, data or weights.
        """
        values = {f"`{name}`": getattr(self.options, name) for name in RESULT_OPTIONS}
        # The paths may differ, and the trained weights are sent to the others at the start.
        values |= {"`model`": self.weights.frozen, "`data`": self.videos.digests}
        self.processes.check_same(values)

    def run(self) -> TrainResult:
        """Train and validate epoch after epoch."""
        with handle_signals(self._request_stop):
            if not self.options.resume:
                # From now on the run can be resumed, and a full disk shows at once.
                self._save(self._save_state)
            try:
                with connection_errors():
                    while not self.state.is_finished(self.options):
                        self._train_epoch()
                        self._end_epoch()
            except Interrupted:
                self._save(self._save_interrupted)
                raise
            except ConnectionLost as error:
                if self.folder is not None:
                    self._save_interrupted(self.folder)  # the others cannot be asked
                raise ConnectionLost(
                    f"{self.options.out}: {error}, with `resume` to continue after step "
                    f"{self.state.step}"
                ) from error
            result = training_result(self.options, self.state)
            if result.stopped_early:
                log.warning(
                    "stopped after epoch %d: no higher validation mIoU in %d validations",
                    result.epochs[-1].epoch,
                    self.options.patience,
                )
            self._write_result(result)
            if self.options.test and self.videos.test:
                # The state is saved, so an interrupted test is simply done again with `resume`.
                result = replace(result, test=self._test(result))
        self._write_result(result, ended=utc_now())
        return result

    def close_loggers(self) -> None:
        """Let loggers write what they still hold."""
        for logger in self.loggers:
            logger.close()

    def _request_stop(self, number: int) -> None:
        # torchrun forwards SIGINT as SIGTERM too, so only a second SIGINT stops without saving.
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_requested = True

    def _write_result(self, result: TrainResult, ended: str | None = None) -> None:
        """Write the result to `run.json`."""
        if self.folder is not None:
            self.record |= result.record() | {"ended": ended}
            self.folder.write_record(self.record)

    # --- training --------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """Train the rest of the epoch, as far as `max_steps` allows."""
        options, fabric = self.options, self.fabric
        batches = self._epoch_batches()[self.state.batch :]
        if options.max_steps is not None:
            batches = batches[: max(0, options.max_steps - self.state.step)]
        self.callback.on_epoch_start(self.state.epoch + 1, options.epochs, len(self.videos.train))
        # A process whose share of the batch is empty reads a video that does not count.
        shards = [
            shard(batch, fabric.global_rank, fabric.world_size) or batch[:1] for batch in batches
        ]
        start_s = time.perf_counter()
        read = self.read
        if options.augment:
            read = partial(read_augmented, self.read, seed=options.seed, epoch=self.state.epoch)
        with closing(self._agreed_samples(read, shards, may_save=True)) as groups:
            for batch, samples in zip(batches, groups, strict=True):
                lr = options.learning_rate(self.state.epoch, self.state.step)
                self.learner.set_learning_rate(lr)
                result = self.learner.compute_gradient(batch, samples)
                self.learner.check_finite(batch, result, self.state.step + 1, self.state.epoch + 1)
                self.learner.update()
                end_s = time.perf_counter()
                self.state = self.state.after_batch(result, len(batch), end_s - start_s)
                start_s = end_s
                self._report_step(result.loss, lr, result.grad_norm)

    def _epoch_batches(self) -> list[list[Clip]]:
        clips, options = self.videos.train, self.options
        batches = epoch_batches(
            len(clips), options.batch_size, seed=options.seed, epoch=self.state.epoch
        )
        return [[clips[index] for index in batch] for batch in batches]

    def _reader_threads(self) -> int:
        return self.options.workers or min(MAX_READER_THREADS, os.cpu_count() or 1)

    def _agreed_samples(
        self, read: ReadSample, shards: Sequence[Sequence[Clip]], *, may_save: bool
    ) -> Generator[list[Sample], None, None]:
        """Read the videos of each shard of this process."""
        with closing(prefetch(read, shards, threads=self._reader_threads())) as reader:
            for _ in shards:
                yield self._next_samples(reader, may_save=may_save)

    def _next_samples(
        self, reader: Generator[list[Sample], None, None], *, may_save: bool
    ) -> list[Sample]:
        """Return this process's next samples, after agreeing with the others to continue.

        All processes stop together if one of them cannot read its samples or received a signal,
        and, if `may_save` is set, save together once `SAVE_INTERVAL_S` has passed in the first one.
        """
        samples: list[Sample] = []
        error: Exception | None = None
        try:
            samples = next(reader)
        except (Av2tsamError, OSError) as caught:
            error = caught
        # Only the first process writes the state, and knows when it last did.
        is_first = self.folder is not None
        is_due = may_save and is_first and time.monotonic() - self.last_save_s > SAVE_INTERVAL_S
        failed, interrupted, due = any_process(
            self.fabric, error is not None, self.stop_requested, is_due
        )
        if failed:
            self.processes.raise_any(error)
        if interrupted:
            raise Interrupted(
                f"{self.options.out}: interrupted after step {self.state.step}; run the same "
                "command with `resume` to continue"
            )
        if due:
            self._save(self._save_state)
        return samples

    def _report_step(self, loss: float, lr: float, grad_norm: float) -> None:
        row = StepRow(self.state.step, self.state.epoch + 1, loss, lr, grad_norm)
        if self.folder is not None:
            self.folder.add_step(row)
        self._log({"train/loss": loss, "train/lr": lr, "train/grad_norm": grad_norm})
        self.callback.on_step(row, self.state.clips)

    def _log(self, metrics: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(metrics, self.state.step)

    # --- validation ------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Validate what was trained of the epoch, if that is due, and save it."""
        options, number = self.options, self.state.epoch + 1
        is_last = number == options.epochs or self.state.has_reached_max_steps(options)
        if is_last or number % options.val_every == 0:
            self._validate_and_save()
        else:
            self.state = self.state.next_epoch()
            self._save(self._save_state)

    def _validate_and_save(self) -> None:
        start_s = time.perf_counter()
        examples = EXAMPLES if self.loggers else 0
        with self.learner.averaged_weights():
            scored = self._score(self.videos.val, self.callback.on_validation, examples)
        val_s = time.perf_counter() - start_s
        lr = self.options.learning_rate(self.state.epoch, self.state.step - 1)
        is_complete = self.state.batch == len(self._epoch_batches())
        self.state = self.state.after_validation(lr, scored, val_s, complete=is_complete)
        if is_complete:
            self.state = self.state.next_epoch()
        self._save(self._save_epoch)
        row = self.state.rows[-1]
        for logger in self.loggers:
            log_epoch(logger, row, scored.examples)
        self.callback.on_epoch_end(row)

    def _score(self, clips: Sequence[Clip], progress: Progress, examples: int = 0) -> SplitScores:
        """Score videos as `evaluate` does, divided among the processes."""
        fabric = self.fabric
        shards = rounds(clips, fabric.global_rank, fabric.world_size)
        with closing(self._agreed_samples(self.read, shards, may_save=False)) as groups:
            return score_split(
                fabric, self.network, clips, groups, progress=progress, examples=examples
            )

    def _test(self, result: TrainResult) -> FinalScores:
        """Score the best epoch's weights, which the network then keeps, on the test split."""
        best = self.processes.from_first(lambda: read_tensors(result.checkpoint))
        restore_weights(best, self.network)
        scores = self._score(self.videos.test, self.callback.on_test).scores
        self._log({"test/miou": scores.miou, "test/f_score": scores.f_score})
        return FinalScores(
            split="test",
            videos=scores.videos,
            miou=scores.miou,
            f_score=scores.f_score,
            epoch=result.best.epoch,
            protocol="avsbench",
        )

    # --- saving and restoring --------------------------------------------------------------------

    def _restore(self) -> None:
        # The first process reads for all, because other machines may not see the run folder.
        path = self.options.out / "resume.safetensors"
        text = self.processes.from_first(lambda: _read_state(path))
        with corruption_errors(path):
            stored = json.loads(text)
            original = TrainOptions.from_json(stored["options"])
            state = TrainingState.from_json(stored["position"])
            videos, frozen, precision = (stored[key] for key in ("videos", "frozen", "precision"))
            stored_digests = {split: videos.get(split) for split in self.videos.digests}
        self.options.check_resumes(original)
        for split, digest in self.videos.digests.items():
            # The test split may have been added by `test` in the meantime.
            if (stored_digests[split] or digest) != digest:
                raise MediaError(
                    f"{self.videos.root}: not the {split} split that the run in {self.options.out} "
                    "was started with: names, frames, masks or sound have changed; use the same "
                    "data, or set `out` to a new folder"
                )
        if frozen != self.weights.frozen:
            raise UsageError(
                f"`model` {self.options.model}: not the weights that the run in {self.options.out} "
                "was started with; use the same files, or set `out` to a new folder"
            )
        tensors = self.processes.from_first(lambda: read_tensors(path))
        with corruption_errors(path):
            restore_tensors(tensors, self.learner)
            self.fabric.strategy.precision.load_state_dict(precision)
        self.state = state
        log.warning("%s: continuing after step %d", self.options.out, state.step)

    def _open_files(self, folder: RunFolder) -> None:
        """Open the loggers, and start the run's files or continue them."""
        self.loggers = open_loggers(
            folder.path,
            self.options.to_json(),
            wandb=self.options.wandb,
            first_step=self.state.step + 1,
        )
        if self.options.resume:
            self.record = read_record(folder.path)
            with corruption_errors(folder.path / RECORD):
                self.record["data"]["sha256"] |= self.videos.digests
            folder.drop_steps_after(self.state.step)
        else:
            self.record = run_record(
                options=self.options,
                start=self.start,
                weights=self.weights,
                videos=self.videos,
                device=self.fabric.device,
                processes=self.fabric.world_size,
            )
            folder.start(self.options, self.record)

    def _save(self, write: Callable[[RunFolder], None]) -> None:
        """Write files in the first process, and let the others fail too if it cannot."""
        with self.processes.together():
            if self.folder is not None:
                write(self.folder)

    def _save_epoch(self, folder: RunFolder) -> None:
        row = self.state.rows[-1]
        self._save_model(folder, folder.last, row)
        if row.best:
            self._save_model(folder, folder.best, row)
        folder.write_epochs(self.state.rows)
        self._save_state(folder)

    def _save_interrupted(self, folder: RunFolder) -> None:
        self._save_state(folder)
        self._save_model(folder, folder.last, None)

    def _save_model(self, folder: RunFolder, path: Path, row: EpochRow | None) -> None:
        metadata = checkpoint_metadata(self.options, self.videos, self.network, row)
        # Checkpoints of a small network contain its frozen parts too: these are small as well.
        trained_only = not is_light(self.network)
        with self.learner.averaged_weights():
            folder.save_model(path, self.network, metadata, trained_only=trained_only)

    def _save_state(self, folder: RunFolder) -> None:
        metadata = {
            "options": self.options.to_json(),
            "videos": self.videos.digests,
            "frozen": self.weights.frozen,
            "position": self.state.to_json(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        folder.save_state(self.network, collect_tensors(self.learner), metadata)
        self.last_save_s = time.monotonic()


def _read_state(path: Path) -> str:
    """Return the state in `resume.safetensors` without its tensors, as JSON.

    Raises:
        MediaError: It is missing or corrupted.
    """
    with corruption_errors(path):
        return read_metadata(path)["state"]
