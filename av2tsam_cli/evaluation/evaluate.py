"""Score a model on AVSBench, or on data in its layout: with its own sound, and with negative sound.

    split ─ jobs ─ embedded ─ read ║ logits ─ silent seconds emptied ─ scores ─ gathered, in order

Embeddings come from the cache that training uses. Videos are split over the processes and each is
predicted on its own, so one process and several give the same digits, whatever the cache held.
Letters: T labelled frames of a video, H, W size of its masks.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip, find_root, open_split, read_windows
from av2tsam_cli.data.cache import EmbeddingCache, default_folder, levels_dbfs
from av2tsam_cli.data.check import keep_readable
from av2tsam_cli.data.samples import Sample, embed_from, read_sample
from av2tsam_cli.errors import MediaError
from av2tsam_cli.evaluation.evaluation import (
    EvaluateOptions,
    Evaluation,
    Negative,
    Result,
    VideoResult,
)
from av2tsam_cli.evaluation.metrics import ScoringProtocol
from av2tsam_cli.evaluation.negative_audio import draw_donors, noise, silence
from av2tsam_cli.evaluation.scoring import emptied, found, predict, score_video, silent
from av2tsam_cli.inference.device import own_threads
from av2tsam_cli.inference.distributed import Processes
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.values import Float32Array

Progress = Callable[[str, int, int], None]
"""Is told what is under way, how many videos of it are done, and of how many."""

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
class EvaluationPlan:
    """What there is to do, known before a model is loaded."""

    jobs: tuple[Job, ...]
    """The videos that are to be scored, in the order of the data set."""
    damaged: tuple[Job, ...]
    """Those that are left out."""


@dataclass(frozen=True)
class Masked:
    """A video that has been scored."""

    job: Job
    """Which one it is."""
    result: VideoResult
    """How good its masks are."""
    masks: Tensor = field(repr=False)
    """The masks with the sound that was asked for, bool, (T, H, W), on the CPU."""
    samples: tuple[Sample, ...] = field(repr=False)
    """What they were made of: with its own sound, then with the negative one where there is one."""


def plan_evaluation(options: EvaluateOptions) -> EvaluationPlan:
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
    return EvaluationPlan(
        jobs=tuple(job for job in jobs if job.clip in kept),
        damaged=tuple(job for job in jobs if job.clip not in kept),
    )


def evaluate(
    model: LoadedModel,
    options: EvaluateOptions,
    plan: EvaluationPlan,
    *,
    processes: Processes | None = None,
    keep: Callable[[Masked], None] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on one split.

    Args:
        model: What is scored.
        options: On what, and how.
        plan: What `plan_evaluation` made of the options.
        processes: Those among which the videos are split; None for this one alone.
        keep: Called with each video of this process, scored.
        progress: Is told how far this process is.

    Returns:
        The scores of all videos, the same in every process.

    Raises:
        MediaError: The data are damaged; in every process, whichever found it.
        Av2tsamError: The cache of embeddings cannot be written; likewise.
    """
    processes = processes or Processes()
    jobs = plan.jobs[processes.rank :: processes.count]
    scored: list[VideoResult] = []
    damaged: list[Job] = []
    error: Exception | None = None
    try:
        for one in score_jobs(model, options, jobs, progress):
            if isinstance(one, Job):
                damaged.append(one)
                continue
            scored.append(one.result)
            if keep is not None:
                keep(one)
    except Exception as caught:  # noqa: BLE001 - the other processes wait below: tell them
        error = caught
    return _joined(plan, processes.gather((scored, damaged, error)))


def _joined(
    plan: EvaluationPlan, shares: Sequence[tuple[list[VideoResult], list[Job], Exception | None]]
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
    model: LoadedModel,
    options: EvaluateOptions,
    jobs: Sequence[Job],
    progress: Progress | None = None,
) -> Generator[Masked | Job, None, None]:
    """Score videos one by one, while the next one is read.

    Args:
        model: What is scored.
        options: How.
        jobs: Which videos.
        progress: Is told how far it is.

    Yields:
        Each video, scored; the mere job where it is damaged and is left out.

    Raises:
        MediaError: A video is damaged, and `skip_bad` is not set.
        Av2tsamError: The cache of embeddings cannot be written.
    """
    cache = EmbeddingCache.open_or_build(
        options.cache or default_folder(),
        model.network,
        [clip for job in jobs for clip in (job.clip, job.donor) if clip is not None],
        reference_sound=options.reference_audio,
        skip_bad=options.skip_bad,
        progress=partial(progress, "embeddings") if progress else None,
    )
    read = run_ahead(_Reader(model, options, cache).read(jobs), depth=1, name="read")
    # As many threads however many processes there are: the last bits of sums depend on them.
    with own_threads(model.cpu_threads), closing(read):
        for done, (job, samples) in enumerate(read, start=1):
            yield _score(model, options, job, samples) if samples else job
            if progress:
                progress("videos", done, len(jobs))


class _Reader:
    """Reads videos, each with the sounds that are asked for."""

    def __init__(self, model: LoadedModel, options: EvaluateOptions, cache: EmbeddingCache) -> None:
        self.model, self.options = model, options
        self.embed = embed_from(cache)
        self.embedded = frozenset(cache.clips)
        self.damaged = {damaged.clip: damaged.reason for damaged in cache.skipped}

    def read(self, jobs: Iterable[Job]) -> Generator[tuple[Job, tuple[Sample, ...]], None, None]:
        """Each video as often as it is heard; not at all where it is damaged and is left out."""
        with own_threads(1):
            for job in jobs:
                try:
                    samples = self._samples(job)
                except MediaError as error:
                    if not self.options.skip_bad:
                        raise
                    log.warning("skipped %s: %s", job.clip.name, error)
                    samples = ()
                yield job, samples

    def _samples(self, job: Job) -> tuple[Sample, ...]:
        """The video with its own sound, then with the negative one where that is asked for."""
        if job.clip in self.damaged:
            raise MediaError(self.damaged[job.clip])
        own = read_sample(job.clip, self.model.network.config, self.embed)
        if self.options.audio == "original":
            return (own,)
        clap, levels = self._negative(job)
        embeddings = own.embeddings._replace(clap=clap, level_dbfs=levels)
        return (own, replace(own, embeddings=embeddings))

    def _negative(self, job: Job) -> tuple[Tensor, Tensor]:
        """CLAP's embeddings (T, A) of the sound that is not the video's own, and levels (T,)."""
        donor, seconds = job.donor, job.clip.labelled
        if donor is not None:  # from its beginning again where it is shorter
            seconds = tuple(second % donor.seconds for second in seconds)
            if donor in self.embedded and set(seconds) <= set(donor.labelled):
                heard = self.embed(donor, seconds)
                return heard.clap, heard.level_dbfs
        windows = torch.from_numpy(self._windows(job, seconds))
        with torch.inference_mode():
            clap = self.model.network.embed_windows(windows.to(self.model.device))
        return clap.float().cpu(), levels_dbfs(windows)

    def _windows(self, job: Job, seconds: Sequence[int]) -> Float32Array:
        """The same sound, (T, n)."""
        options, rate_hz = self.options, self.model.network.config.clap.rate_hz
        if job.donor is not None:
            return read_windows(job.donor, seconds, rate_hz, reference=options.reference_audio)
        if options.audio == "silence":
            return silence(len(seconds), rate_hz)
        return noise(len(seconds), rate_hz, np.random.default_rng((options.seed, job.index)))


def _score(
    model: LoadedModel, options: EvaluateOptions, job: Job, samples: tuple[Sample, ...]
) -> Masked:
    size = options.batch_size or model.batch_size
    alone = [predict(model.network, sample, model.device, size) for sample in samples]
    quiet = [silent(sample, options.gate_dbfs) for sample in samples]
    gated = [emptied(*pair) for pair in zip(alone, quiet, strict=True)]
    result = VideoResult(
        index=job.index,
        clip=job.clip,
        gated=_compared(options.protocol, samples, gated),
        ungated=_compared(options.protocol, samples, alone),
        silent_frames=sum(int(frames.sum()) for frames in quiet),
    )
    return Masked(job, result, masks=found(gated[-1]).cpu(), samples=samples)


def _compared(
    protocol: ScoringProtocol, samples: Sequence[Sample], logits: Sequence[Tensor]
) -> Result:
    """Score the logits (T, H, W) with the own sound, and with the negative one where there is one.

    Args:
        protocol: Whose rule F follows.
        samples: The video with each sound.
        logits: What was made of each.
    """
    own, *negative = (score_video(*pair, protocol) for pair in zip(samples, logits, strict=True))
    if not negative:
        return Result(own)
    masks = found(logits[1])
    return Result(
        own,
        Negative(
            score=negative[0],
            found=float(masks.double().mean((1, 2)).mean()),
            frames_found=int(masks.any(2).any(1).sum()),
        ),
    )
