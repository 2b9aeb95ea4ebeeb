"""Training on AVSBench: the trained part, losses and schedule of the paper's code.

A batch is a number of videos with all their labelled seconds, whatever the number of processes and
parts it is shared between: these change memory and speed, not the result (but for rounding).
"""

import json
import math
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.fabric import Fabric

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.batches import epoch_batches, read_ahead, share, split
from av2tsam_cli.data.samples import Sample, gather
from av2tsam_cli.errors import Av2tsamError, Interrupted, MediaError
from av2tsam_cli.evaluation.metrics import ScoringProtocol
from av2tsam_cli.evaluation.scoring import (
    Scores,
    VideoScore,
    emptied,
    predict,
    score_video,
    silent,
    summarise,
)
from av2tsam_cli.hub.tensor_file import read_metadata
from av2tsam_cli.inference.device import choose_device, choose_precision
from av2tsam_cli.inference.distributed import (
    OtherProcessFailed,
    Stop,
    rank_of_process,
    said_by_any,
    start_fabric,
    summed,
)
from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training import record, resume, trackers
from av2tsam_cli.training.learner import Learner, frames_loss
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.progress import EpochRow, Nobody, Position, StepRow, Watcher
from av2tsam_cli.training.run_folder import RunFolder, now, open_folder, read_record
from av2tsam_cli.training.start import set_learning, set_recompute, starting_network
from av2tsam_cli.training.videos import Videos, embed, find_videos

SAVE_EVERY_S = 600.0
"""Seconds after which the state is saved within an epoch, for machines that go down."""
MOST_READERS = 4
"""Threads that read the data where none were asked for."""


@dataclass(frozen=True)
class RunResult:
    """What a training came to."""

    out: Path
    """The run folder."""
    checkpoint: Path
    """The model of the best epoch."""
    best: EpochRow
    """The epoch with the highest validation mIoU."""
    epochs: tuple[EpochRow, ...]
    """All of them."""
    steps: int
    """Steps of the optimiser."""


def train(
    options: TrainOptions, watcher: Watcher | None = None, network: Av2tSam | None = None
) -> RunResult:
    """Train a model.

    Args:
        options: What is asked for.
        watcher: Is told how it goes.
        network: Where to start, instead of what the options name; on the CPU, in float32. It may
            be another network with the parts and the `forward` of `Av2tSam`.

    Raises:
        UsageError: The options do not fit each other, the model, the data or the run folder.
        MediaError: The data cannot be read, or the run folder cannot be written or is in use.
        WeightsError: The model to start from is missing or damaged.
        Interrupted: SIGINT or SIGTERM came; `resume` goes on.
        Av2tsamError: The loss or the gradient is no number any more.
    """
    trackers.check_wandb(wanted=options.wandb)
    videos = find_videos(options)
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder(options)) if rank_of_process() == 0 else None
        device = choose_device(options.device)
        precision = choose_precision(options.precision, device)
        fabric = start_fabric(device.type, options.devices, precision)
        torch.manual_seed(options.seed)
        network = network or starting_network(options)
        training = _Training(options, fabric, network, folder, watcher or Nobody())
        training.prepare(videos)
        stack.callback(training.close)
        return training.run()


class _Training:
    """One training, from its beginning or from where it was interrupted."""

    def __init__(
        self,
        options: TrainOptions,
        fabric: Fabric,
        network: Av2tSam,
        folder: RunFolder | None,
        watcher: Watcher,
    ) -> None:
        self.options = options
        self.fabric = fabric
        self.network = network.eval()  # nothing in it is random, and BatchNorm stays as it was
        self.folder = folder
        self.watcher = watcher if folder is not None else Nobody()
        self.stop = Stop()
        self.position = Position()
        self.trackers: list[trackers.Tracker] = []
        self.saved_s = time.monotonic()

    # --- before and after ------------------------------------------------------------------------

    def prepare(self, videos: Videos) -> None:
        """Embed the videos, make the optimiser, and put back what is resumed."""
        options, network = self.options, self.network
        self.learning = set_learning(network)
        set_recompute(network, options.recompute)
        network.to(self.fabric.device)
        self.videos, self.read = embed(videos, network, options, self.watcher.embedding)
        self.optimiser = torch.optim.AdamW([p for _, p in self.learning], lr=options.lr)
        self.learner, self.fabric_optimiser = self.fabric.setup(Learner(network), self.optimiser)
        if options.resume:
            self._restore()
        if self.folder is not None:
            self._open(self.folder)

    def _restore(self) -> None:
        path = self.options.out / "resume.safetensors"
        state = json.loads(read_metadata(path)["state"])
        self.options.check_continues(TrainOptions.from_json(state["options"]))
        if state["videos"] != self.videos.digest:
            raise MediaError(
                f"{self.videos.root}: not the videos that the run in {self.options.out} was begun "
                "with; name the same data, or train into another --out"
            )
        resume.unpack(resume.read_tensors(path), self.network, self.optimiser, self.learning)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.position = Position.from_json(state["position"])

    def _open(self, folder: RunFolder) -> None:
        """Write down what is done, or what was added to it."""
        self.trackers = trackers.open_trackers(
            folder.path,
            self.options.to_json(),
            wandb=self.options.wandb,
            from_step=self.position.step + 1,
        )
        if self.options.resume:
            self.record = read_record(folder.path)
            folder.go_on(self.position)
        else:
            self.record = self._new_record()
            folder.begin(self.record)

    def close(self) -> None:
        """Write what trackers still hold."""
        for tracker in self.trackers:
            tracker.close()

    def run(self) -> RunResult:
        """Train and score, epoch by epoch."""
        with self.stop.listening():
            if not self.options.resume:
                # So that there always is a state to go on from, and a full disk shows at once.
                self._on_first(self._save_state)
            while not self._is_done():
                self._train_epoch()
                self._close_epoch()
        best = self.position.best
        assert best is not None  # noqa: S101 - every epoch is scored
        if self.folder is not None:
            self.record |= {"ended": now(), "best": asdict(best), "steps": self.position.step}
            self.folder.write_record(self.record)
        out = self.options.out
        rows = self.position.rows
        return RunResult(out, out / "best.safetensors", best, rows, self.position.step)

    def _new_record(self) -> dict[str, Any]:
        network, fabric = self.network, self.fabric
        return {
            "options": self.options.to_json(),
            "seed": self.options.seed,
            "started": now(),
            "processes": fabric.world_size,
            "environment": record.environment(fabric.device),
            "code": record.code_state(),
            "data": {
                "root": self.videos.root.resolve(),
                "state": record.git_state(self.videos.root),
                "videos": {"train": len(self.videos.train), "val": len(self.videos.val)},
                "digest": self.videos.digest,
            },
            "network": {
                **record.described(network),
                "parameters": sum(p.numel() for p in network.parameters()),
                "learning": sum(p.numel() for _, p in self.learning),
            },
        }

    def _is_done(self) -> bool:
        position, most = self.position, self.options.max_steps
        scored = bool(position.rows) and position.rows[-1].step == position.step
        stopped = most is not None and position.step >= most and scored
        return position.epoch >= self.options.epochs or stopped

    # --- training --------------------------------------------------------------------------------

    def _batches(self) -> list[list[Clip]]:
        """All batches of the epoch."""
        clips, options = self.videos.train, self.options
        batches = epoch_batches(
            len(clips), options.batch_size, seed=options.seed, epoch=self.position.epoch
        )
        return [[clips[place] for place in batch] for batch in batches]

    def _train_epoch(self) -> None:
        """The rest of the epoch, or what `max_steps` leaves of it."""
        options, fabric = self.options, self.fabric
        most = math.inf if options.max_steps is None else options.max_steps
        left = most - self.position.step
        todo = [
            batch
            for number, batch in enumerate(self._batches()[self.position.batch :])
            if number < left
        ]
        for group in self.fabric_optimiser.param_groups:
            group["lr"] = options.learning_rate(self.position.epoch)
        self.watcher.epoch_begins(self.position.epoch + 1, options.epochs, len(self.videos.train))
        # A process without a video of its own takes one that does not count.
        shares = [
            share(batch, fabric.global_rank, fabric.world_size) or batch[:1] for batch in todo
        ]
        before_s = time.perf_counter()
        with closing(read_ahead(self.read, shares, threads=self._readers())) as reader:
            for batch in todo:
                loss, grad_norm = self._step(batch, self._take(reader))
                after_s = time.perf_counter()
                self.position = self.position.after_batch(loss, len(batch), after_s - before_s)
                before_s = after_s
                self._report(loss, grad_norm)

    def _readers(self) -> int:
        return self.options.workers or min(MOST_READERS, os.cpu_count() or 1)

    def _take(self, reader: Generator[list[Sample], None, None]) -> list[Sample]:
        """The next samples of this process, unless one failed, or was told to stop."""
        samples: list[Sample] = []
        error: Exception | None = None
        try:
            samples = next(reader)
        except (Av2tsamError, OSError) as caught:
            error = caught
        is_due = time.monotonic() - self.saved_s > SAVE_EVERY_S
        failed, stopped, due = said_by_any(self.fabric, error is not None, self.stop.asked, is_due)
        if error is not None:
            raise error
        if failed:
            raise OtherProcessFailed("another process of this training failed, and says why")
        if stopped:
            self._interrupt()
        if due:
            self._on_first(self._save_state)
        return samples

    def _step(self, batch: Sequence[Clip], samples: Sequence[Sample]) -> tuple[float, float]:
        """One step of the optimiser: mean loss of the whole batch, length of its gradient."""
        fabric, world = self.fabric, self.fabric.world_size
        own = len(share(batch, fabric.global_rank, world)) > 0
        frames = sum(len(clip.labelled) for clip in batch)
        total = torch.zeros((), device=fabric.device)
        self.fabric_optimiser.zero_grad()
        parts = split(samples, self.options.accumulate)
        for number, part in enumerate(parts, 1):
            weight = own * sum(len(sample.masks) for sample in part) / frames
            inputs = gather(self.network.config, part, fabric.device)
            with fabric.no_backward_sync(self.learner, enabled=number < len(parts)):
                logits = self.learner(inputs.seen, inputs.beit, inputs.clip, inputs.clap)
                loss = frames_loss(self.network, logits, part) * weight
                # The processes' gradients are averaged, and their sum is wanted.
                fabric.backward(loss * world)
            total += loss.detach()
        mean = float(summed(fabric, total))
        norm = self._clip_gradient()
        self._check_finite(batch, mean, norm)
        self.fabric_optimiser.step()
        return mean, norm

    def _clip_gradient(self) -> float:
        norm = self.fabric.clip_gradients(
            self.learner,
            self.fabric_optimiser,
            max_norm=self.options.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        return float(norm if norm is not None else math.nan)

    def _check_finite(self, batch: Sequence[Clip], loss: float, norm: float) -> None:
        """Stop before the step that would spoil the weights.

        With fp16 a gradient that is not finite only means that the scale of the loss is too high:
        the step is skipped and the scale lowered.
        """
        scaled = "16-mixed" in str(self.fabric.strategy.precision.precision)
        for what, value in (("loss", loss), ("gradient", 0.0 if scaled else norm)):
            if not math.isfinite(value):
                names = ", ".join(clip.name for clip in batch)
                raise Av2tsamError(
                    f"the {what} is {value} at step {self.position.step + 1}, epoch "
                    f"{self.position.epoch + 1}, of the videos {names}; look at these, or try a "
                    "lower --lr, --clip-norm 1 or --precision fp32"
                )

    def _report(self, loss: float, norm: float) -> None:
        position = self.position
        rate = self.options.learning_rate(position.epoch)
        row = StepRow(position.step, position.epoch + 1, loss, rate, norm)
        if self.folder is not None:
            self.folder.add_step(row)
        values = {"train/loss": loss, "train/lr": rate, "train/grad_norm": norm}
        self._track(values)
        self.watcher.step(row, position.clips)

    def _track(self, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(self.position.step, values)

    # --- scoring and saving ----------------------------------------------------------------------

    def _close_epoch(self) -> None:
        """Score what was trained, and save it."""
        begun_s = time.perf_counter()
        scores = self._score()
        val_s = time.perf_counter() - begun_s
        rate = self.options.learning_rate(self.position.epoch)
        position = self.position.validated(rate, scores, val_s)
        whole = position.batch == len(self._batches())
        self.position = position.next_epoch() if whole else position
        row = position.rows[-1]
        self._on_first(self._save_epoch)
        self._track({"val/miou": row.val_miou, "val/f_score": row.val_f_score})
        self._track({"train/epoch_loss": row.loss, "train/clips_per_s": row.clips_per_s})
        self.watcher.epoch_ends(row)

    def _score(self) -> Scores:
        """What `evaluate` gives on the validation split, shared between the processes."""
        fabric, clips = self.fabric, self.videos.val
        rank, world = fabric.global_rank, fabric.world_size
        rounds = -(-len(clips) // world)
        own = [
            list(clips[n * world + rank :][:1]) if n * world + rank < len(clips) else []
            for n in range(rounds)
        ]
        table = torch.zeros(len(clips), 2, dtype=torch.float64)
        with closing(read_ahead(self.read, own, threads=self._readers())) as reader:
            for n in range(rounds):
                for sample in self._take(reader):
                    with fabric.autocast():
                        logits = predict(self.network, sample, fabric.device)
                    score = score_video(sample, emptied(logits, silent(sample)))
                    table[n * world + rank] = torch.tensor([score.miou, score.f_score])
                self.watcher.validating(min((n + 1) * world, len(clips)), len(clips))
        # Each row is of one process, and zero elsewhere: the sum is exact.
        rows = summed(fabric, table).tolist()
        return summarise(
            VideoScore(clip.name, clip.category, len(clip.labelled), *row)
            for clip, row in zip(clips, rows, strict=True)
        )

    def _interrupt(self) -> None:
        """Save, and leave."""

        def save(folder: RunFolder) -> None:
            self._save_state(folder)
            folder.save_model(folder.last, self.network, self._metadata(None), whole=self._whole)

        self._on_first(save)
        raise Interrupted(
            f"{self.options.out}: interrupted after step {self.position.step}; the same command "
            "with --resume goes on from there"
        )

    def _save_epoch(self, folder: RunFolder) -> None:
        row = self.position.rows[-1]
        folder.save_model(folder.last, self.network, self._metadata(row), whole=self._whole)
        if row.best:
            folder.save_model(folder.best, self.network, self._metadata(row), whole=self._whole)
        folder.write_epochs(self.position.rows)
        self._save_state(folder)

    def _save_state(self, folder: RunFolder) -> None:
        state = {
            "options": self.options.to_json(),
            "videos": self.videos.digest,
            "position": self.position.to_json(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        tensors = resume.pack(self.network, self.optimiser, self.learning)
        folder.save_state(self.network, tensors, state)
        self.saved_s = time.monotonic()

    @property
    def _whole(self) -> bool:
        """Whether checkpoints hold the frozen parts too: those of a small network are small."""
        return is_light(self.network)

    def _metadata(self, row: EpochRow | None) -> dict[str, object]:
        """What a checkpoint says about itself."""
        scores = None
        if row is not None:
            scores = {
                "split": "val",
                "protocol": ScoringProtocol.AVSBENCH,
                "miou": row.val_miou,
                "f_score": row.val_f_score,
                "epoch": row.epoch,
                "step": row.step,
            }
        return {
            **record.described(self.network),
            "training": self.options.to_json(),
            "data": {
                "name": self.options.data,
                "subset": self.options.subset,
                "videos": len(self.videos.train),
            },
            "metrics": scores,
        }

    def _on_first(self, save: Callable[[RunFolder], None]) -> None:
        """Let the first process write, while the others wait and learn whether it could."""
        error: Exception | None = None
        if self.folder is not None:
            try:
                save(self.folder)
            except (Av2tsamError, OSError) as caught:
                error = caught
        (failed,) = said_by_any(self.fabric, error is not None)
        if error is not None:
            raise error
        if failed:
            raise OtherProcessFailed("the first process of this training could not write")
