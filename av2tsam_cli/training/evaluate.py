"""Score a model on AVSBench, or on data in its layout: with its own sound, and with negative sound.

    split ─ jobs ─ read ║ logits ─ silent seconds emptied ─ scores ─ gathered, in the split's order

Videos are split over the processes and each is predicted on its own, so one process and several
give the same digits. Letters: T labelled frames of a video, H, W size of its masks.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.errors import MediaError
from av2tsam_cli.inference import LoadedModel, own_threads
from av2tsam_cli.metrics import Protocol
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.training.avsbench import (
    Clip,
    find_root,
    open_split,
    read_frames,
    read_masks,
    read_windows,
)
from av2tsam_cli.training.cache import Embeddings, pixels
from av2tsam_cli.training.check import keep_readable
from av2tsam_cli.training.evaluation import (
    EvaluateOptions,
    Evaluation,
    Negative,
    Result,
    VideoResult,
)
from av2tsam_cli.training.processes import Processes
from av2tsam_cli.training.samples import Sample
from av2tsam_cli.training.scoring import predict, score_video
from av2tsam_cli.training.sounds import draw_donors, noise, offscreen, silence
from av2tsam_cli.values import AudioWindow, Float32Array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One video that is to be scored."""

    index: int
    """Its place in the split."""
    clip: Clip
    """The video."""
    donor: Clip | None
    """Whose sound it gets, where that is what is asked for."""


@dataclass(frozen=True)
class Plan:
    """What there is to do, known before a model is loaded."""

    jobs: tuple[Job, ...]
    """The videos that are to be scored, in the order of the data set."""
    damaged: tuple[Job, ...]
    """Those that are left out."""


@dataclass(frozen=True)
class Video:
    """What is needed of one video, read."""

    job: Job
    """Which one it is."""
    frames: Tensor = field(repr=False)
    """Uint8, (T, 3, h, w), squashed where the network wants it so."""
    masks: Tensor = field(repr=False)
    """What sounds, bool, (T, H, W)."""
    sounds: tuple[Float32Array, ...] = field(repr=False)
    """Windows (T, n) of its own sound, then those of the negative one where there is one."""


@dataclass(frozen=True)
class Masked:
    """A video that has been scored."""

    result: VideoResult
    """How good its masks are."""
    masks: Tensor = field(repr=False)
    """The masks with the sound that was asked for, bool, (T, H, W), on the CPU."""
    video: Video = field(repr=False)
    """What they were made of."""


def plan_evaluation(options: EvaluateOptions) -> Plan:
    """Find the videos that are to be scored, and look for damage, in seconds.

    Raises:
        UsageError: There is no other sound for one of them.
        MediaError: The data are not there, or a video is damaged and `skip_bad` is not set.
    """
    root = find_root(options.data, options.data_root)
    clips = open_split(root, options.subset, options.split)
    donors: Sequence[Clip | None] = (None,) * len(clips)
    if options.audio == "offscreen":
        donors = draw_donors(clips, options.seed)
    wanted = clips[: options.limit]
    intact, damaged = keep_readable(wanted, skip_bad=options.skip_bad)
    for problem in damaged:
        log.warning("skipped %s: %s", problem.clip.name, problem.reason)
    rows = zip(wanted, donors[: options.limit], strict=True)
    jobs = [Job(k, clip, donor) for k, (clip, donor) in enumerate(rows)]
    kept = frozenset(intact)
    return Plan(
        jobs=tuple(job for job in jobs if job.clip in kept),
        damaged=tuple(job for job in jobs if job.clip not in kept),
    )


def evaluate(
    model: LoadedModel,
    options: EvaluateOptions,
    plan: Plan,
    *,
    processes: Processes | None = None,
    keep: Callable[[Masked], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a model on one split.

    Args:
        model: What is scored.
        options: On what, and how.
        plan: What `plan_evaluation` made of the options.
        processes: Those among which the videos are split; None for this one alone.
        keep: Called with each video of this process, scored.
        progress: Called with the number of videos that this process has done, after each.

    Returns:
        The scores of all videos, the same in every process.

    Raises:
        MediaError: The data are damaged; in every process, whichever found it.
    """
    processes = processes or Processes()
    jobs = plan.jobs[processes.rank :: processes.count]
    found: list[VideoResult] = []
    damaged: list[Job] = []
    error: Exception | None = None
    try:
        for done, one in enumerate(score_jobs(model, options, jobs), start=1):
            if isinstance(one, Job):
                damaged.append(one)
            else:
                found.append(one.result)
                if keep is not None:
                    keep(one)
            if progress is not None:
                progress(done)
    except Exception as caught:  # noqa: BLE001 - the other processes wait below: tell them
        error = caught
    return _joined(plan, processes.gather((found, damaged, error)))


def _joined(
    plan: Plan, shares: Sequence[tuple[list[VideoResult], list[Job], Exception | None]]
) -> Evaluation:
    """What all processes found, in the order of the data set."""
    for _, _, error in shares:
        if error is not None:
            raise error
    results = sorted((r for found, _, _ in shares for r in found), key=lambda r: r.index)
    damaged = [*plan.damaged, *(job for _, jobs, _ in shares for job in jobs)]
    names = [job.clip.name for job in sorted(damaged, key=lambda job: job.index)]
    if not results:
        raise MediaError(f"all {len(names)} videos are damaged")
    return Evaluation(tuple(results), tuple(names))


def score_jobs(
    model: LoadedModel, options: EvaluateOptions, jobs: Iterable[Job]
) -> Generator[Masked | Job, None, None]:
    """Score videos one by one, while the next one is read.

    Yields:
        Each video, scored; the mere job where it is damaged and is left out.

    Raises:
        MediaError: A video is damaged, and `skip_bad` is not set.
    """
    read = run_ahead(_read_jobs(model, options, jobs), depth=1, name="read")
    # As many threads however many processes there are: the last bits of sums depend on them.
    with own_threads(model.cpu_threads), closing(read):
        for video in read:
            yield video if isinstance(video, Job) else _score(model, options, video)


def _read_jobs(
    model: LoadedModel, options: EvaluateOptions, jobs: Iterable[Job]
) -> Generator[Video | Job, None, None]:
    with own_threads(1):
        for job in jobs:
            try:
                yield _read(model, options, job)
            except MediaError as error:
                if not options.skip_bad:
                    raise
                log.warning("skipped %s: %s", job.clip.name, error)
                yield job


def _read(model: LoadedModel, options: EvaluateOptions, job: Job) -> Video:
    config, seconds = model.network.config, job.clip.labelled
    return Video(
        job=job,
        frames=pixels(config, read_frames(job.clip, seconds)),
        masks=torch.from_numpy(read_masks(job.clip, seconds)),
        sounds=tuple(_sounds(options, job, config.clap.rate_hz)),
    )


def _sounds(options: EvaluateOptions, job: Job, rate_hz: int) -> Iterator[Float32Array]:
    """Its own sound, then the one that is asked for where that is another."""
    seconds, reference = job.clip.labelled, options.reference_audio
    yield read_windows(job.clip, seconds, rate_hz, reference=reference)
    if options.audio == "silence":
        yield silence(len(seconds), rate_hz)
    elif options.audio == "noise":
        yield noise(len(seconds), rate_hz, np.random.default_rng((options.seed, job.index)))
    elif job.donor is not None:
        yield offscreen(job.donor, seconds, rate_hz, reference=reference)


def _score(model: LoadedModel, options: EvaluateOptions, video: Video) -> Masked:
    size = options.batch_size or model.batch_size
    samples = [_embedded(model, video, windows, size) for windows in video.sounds]
    alone = [_logits(model, sample, size) for sample in samples]
    silent = [_silent(windows, options.gate_dbfs) for windows in video.sounds]
    gated = [_emptied(*pair) for pair in zip(alone, silent, strict=True)]
    result = VideoResult(
        index=video.job.index,
        clip=video.job.clip,
        gated=_compared(options.protocol, samples, gated),
        ungated=_compared(options.protocol, samples, alone),
        silent_frames=sum(int(quiet.sum()) for quiet in silent),
    )
    return Masked(result, masks=_found(gated[-1]).cpu(), video=video)


def _embedded(model: LoadedModel, video: Video, windows: Float32Array, size: int) -> Sample:
    """What the network needs of a video with one sound; so many frames go through at a time."""
    network, device = model.network, model.device
    sound = torch.from_numpy(windows)
    with torch.inference_mode():
        clip = [network.embed_frames(part.to(device)) for part in _parts(video.frames, size)]
        clap = [network.embed_windows(part.to(device)) for part in _parts(sound, size)]
    embeddings = Embeddings(torch.cat(clip), torch.cat(clap))
    return Sample(video.job.clip, video.frames, video.masks, embeddings)


def _logits(model: LoadedModel, sample: Sample, size: int) -> Tensor:
    """Mask logits (T, H, W) of a video, so many frames at a time."""
    columns = (sample.frames, sample.masks, sample.embeddings.clip, sample.embeddings.clap)
    parts = (
        Sample(sample.clip, frames, masks, Embeddings(*embedded))
        for frames, masks, *embedded in zip(*(_parts(c, size) for c in columns), strict=True)
    )
    return torch.cat([predict(model.network, part, model.device) for part in parts])


def _parts(frames: Tensor, size: int) -> list[Tensor]:
    """Consecutive parts of (T, ...), each of at most `size` frames."""
    return [frames[begin : begin + size] for begin in range(0, len(frames), size)]


def _silent(windows: Float32Array, gate_dbfs: float) -> Tensor:
    """Which of the windows (T, n) are below the gate, bool, (T,)."""
    levels = [AudioWindow(w, index=k, rate_hz=len(w)).level_dbfs for k, w in enumerate(windows)]
    return torch.tensor([level < gate_dbfs for level in levels])


def _emptied(logits: Tensor, silent: Tensor) -> Tensor:
    """Logits (T, H, W) with the probability of silent frames at zero."""
    return logits.masked_fill(silent.to(logits.device)[:, None, None], -torch.inf)


def _found(logits: Tensor) -> Tensor:
    """What counts as found, as `metrics.frame_iou` decides it."""
    return torch.sigmoid(logits) > 0.5


def _compared(protocol: Protocol, samples: Sequence[Sample], logits: Sequence[Tensor]) -> Result:
    """Score the logits (T, H, W) with the own sound, and with the negative one where there is one.

    Args:
        protocol: Whose rule F follows.
        samples: The video with each sound.
        logits: What was made of each.
    """
    original = score_video(samples[0], logits[0], protocol)
    if len(samples) == 1:
        return Result(original)
    found = _found(logits[1])
    negative = Negative(
        score=score_video(samples[1], logits[1], protocol),
        found=float(found.double().mean((1, 2)).mean()),
        frames_found=int(found.any(2).any(1).sum()),
    )
    return Result(original, negative)
