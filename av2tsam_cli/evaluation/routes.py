"""How a model predicts the masks of a video: as it was trained to, or by the words route.

Letters: T labelled seconds of a video, H, W size of its masks, A width of CLAP's embeddings, n
samples of a window, K names that are heard in a second.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.avsbench_format import FRAME_OFFSET_S
from av2tsam_cli.data.cache import EmbeddingCache, Embeddings, levels_dbfs, network_frames
from av2tsam_cli.data.clips import read_clip_frames, read_clip_masks, read_clip_windows
from av2tsam_cli.data.samples import Sample, read_sample
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.evaluation.metrics import predicted_masks
from av2tsam_cli.evaluation.naming import LabelArray
from av2tsam_cli.evaluation.negative_audio import noise, silence
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.plan import EvaluationPlan, PlannedVideo
from av2tsam_cli.evaluation.scoring import predict, suppress
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.values import AudioWindow, Float32Array
from av2tsam_cli.words.segmenter import NO_MASK, WordsSegmenter
from av2tsam_cli.words.vocabulary import Source, choose_vocabulary


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for a video."""

    logits: Tensor = field(repr=False)
    """Mask logits, float32, (T, H, W), on the model's device."""
    labels: LabelArray | None = field(default=None, repr=False)
    """What each pixel shows, uint16, (T, H, W), by `Route.label_names`; None without names."""

    def suppress(self, frames: Tensor) -> "Prediction":
        """Return the prediction with empty masks in selected frames, bool, (T,)."""
        labels = self.labels
        if labels is not None:
            labels = np.where(frames.numpy()[:, None, None], labels.dtype.type(0), labels)
        return Prediction(suppress(self.logits, frames), labels)


class Route(ABC):
    """Reads the videos of an evaluation and predicts their masks."""

    label_names: tuple[str, ...]
    """Names of the labels; the first ones are those of the data (see `EvaluationPlan`)."""

    def __init__(self, model: LoadedModel, options: EvaluateOptions, plan: EvaluationPlan) -> None:
        self.model, self.options = model, options
        self.label_names = plan.label_names

    @abstractmethod
    def read(self, video: PlannedVideo) -> tuple[Sample, ...]:
        """Read a video with its original audio and, if evaluated, with negative audio.

        Raises:
            MediaError: A file is missing or corrupted.
        """

    @abstractmethod
    def predict(self, sample: Sample) -> Prediction:
        """Predict the masks of a video."""


class TrainedRoute(Route):
    """Predicts masks with the audio part of a model, from cached embeddings."""

    def __init__(
        self,
        model: LoadedModel,
        options: EvaluateOptions,
        plan: EvaluationPlan,
        cache: EmbeddingCache,
    ) -> None:
        super().__init__(model, options, plan)
        self.cache = cache
        self.problems = {problem.clip: problem.message for problem in cache.skipped}

    def read(self, video: PlannedVideo) -> tuple[Sample, ...]:
        """See `Route`."""
        if video.clip in self.problems:
            raise MediaError(self.problems[video.clip])
        original = read_sample(video.clip, self.model.network.config, self.cache.read)
        if self.options.timing == "fine":
            own = replace(self.options, audio="original"), replace(video, donor=None)
            original = self._heard(original, *own)
        if self.options.audio == "original":
            return (original,)
        if self.options.timing == "fine":
            return (original, self._heard(original, self.options, video))
        clap, level_dbfs = self._negative_audio(video)
        embeddings = original.embeddings._replace(clap=clap, level_dbfs=level_dbfs)
        return (original, replace(original, embeddings=embeddings))

    def predict(self, sample: Sample) -> Prediction:
        """See `Route`."""
        batch_size = self.options.batch_size or self.model.batch_size
        return Prediction(predict(self.model.network, sample, self.model.device, batch_size))

    def _heard(self, sample: Sample, options: EvaluateOptions, video: PlannedVideo) -> Sample:
        """Return the sample with the sound around each of its frames, cut where sources change."""
        segmenter = Segmenter(self.model)
        seconds = read_seconds(options, video, segmenter.rate_hz)
        windows = [*segmenter.hear(seconds, "fine", options.gate_dbfs)]
        chosen = [_at_frame(windows, second) for second in video.clip.labelled]
        clap = segmenter.embed_windows(chosen).float().cpu()
        levels = torch.tensor([window.level_dbfs for window in chosen])
        return replace(sample, embeddings=sample.embeddings._replace(clap=clap, level_dbfs=levels))

    def _negative_audio(self, video: PlannedVideo) -> tuple[Tensor, Tensor]:
        """Return CLAP embeddings (T, A) and sound levels (T,) of the negative audio."""
        donor, seconds = video.donor, video.clip.labelled
        if donor is not None:
            # The audio of a shorter video is repeated.
            seconds = tuple(second % donor.seconds for second in seconds)
            if donor in self.cache.files and set(seconds) <= set(donor.labelled):
                cached = self.cache.read(donor, seconds)
                return cached.clap, cached.level_dbfs
        rate_hz = self.model.network.config.clap.rate_hz
        windows = torch.from_numpy(read_windows(self.options, video, rate_hz, video.clip.labelled))
        with torch.inference_mode():
            clap = self.model.network.embed_windows(windows.to(self.model.device))
        return clap.float().cpu(), levels_dbfs(windows)


@dataclass(frozen=True)
class HeardSample(Sample):
    """The labelled seconds of one video, with the sound of all seconds."""

    windows: tuple[AudioWindow, ...] = field(default=(), repr=False)
    """The sound: the words route also listens before and after a second."""


class WordsRoute(Route):
    """Predicts a mask for each source of a vocabulary that is heard and in view."""

    def __init__(self, model: LoadedModel, options: EvaluateOptions, plan: EvaluationPlan) -> None:
        """Prepare a model.

        Raises:
            UsageError: A name is unknown, or the model does not support a word of the vocabulary.
            MediaError: The vocabulary file is not valid.
            WeightsError: The model has no text encoders, or a tokenizer is missing.
        """
        super().__init__(model, options, plan)
        if options.reference_audio:
            raise UsageError("`reference_audio` has no effect with `hear` words; omit one of them")
        names, _ = choose_names(model, options, plan)
        # Silent seconds are gated like those of the trained route, by the caller.
        silence_dbfs = options.gate_dbfs if options.timing == "fine" else None
        self.segmenter = WordsSegmenter(model, options.vocabulary, names, silence_dbfs=silence_dbfs)
        sources = self.segmenter.hearing.vocabulary.sources
        known = [label_name(source, plan.label_names) or source.name for source in sources]
        self.label_names = tuple(dict.fromkeys((*plan.label_names, *known)))
        self.labels = {
            source.name: self.label_names.index(name)
            for source, name in zip(sources, known, strict=True)
        }

    def read(self, video: PlannedVideo) -> tuple[HeardSample, ...]:
        """See `Route`."""
        clip = video.clip
        frames = read_clip_frames(clip, clip.labelled)
        original = HeardSample(
            clip=clip,
            frames=network_frames(self.model.network.config, frames),
            masks=torch.from_numpy(read_clip_masks(clip, clip.labelled)),
            embeddings=Embeddings(clip=torch.empty(0), clap=torch.empty(0)),
        )
        own = self._with_sound(
            original, replace(self.options, audio="original"), replace(video, donor=None)
        )
        if self.options.audio == "original":
            return (own,)
        return (own, self._with_sound(original, self.options, video))

    def _with_sound(
        self, sample: HeardSample, options: EvaluateOptions, video: PlannedVideo
    ) -> HeardSample:
        """Return the sample with the kind of audio that the options name."""
        windows = tuple(read_seconds(options, video, self.segmenter.rate_hz))
        levels = torch.tensor([windows[second].level_dbfs for second in sample.clip.labelled])
        embeddings = sample.embeddings._replace(level_dbfs=levels)
        return replace(sample, windows=windows, embeddings=embeddings)

    def predict(self, sample: Sample) -> Prediction:
        """See `Route`."""
        assert isinstance(sample, HeardSample)  # noqa: S101 - from `read`
        windows = list(self.segmenter.hear(iter(sample.windows), self.options.timing))
        chosen = [_at_frame(windows, second) for second in sample.clip.labelled]
        heard = [self.segmenter.names_of(window) for window in chosen]
        logits = torch.full(sample.masks.shape, NO_MASK, device=self.model.device)
        labels = np.zeros(sample.masks.shape, np.uint16)
        frames = [row for row, names in enumerate(heard) if names]
        batch_size = self.options.batch_size or self.model.batch_size
        for start in range(0, len(frames), batch_size):
            rows = frames[start : start + batch_size]
            pixels = sample.frames[rows].permute(0, 2, 3, 1).contiguous().numpy()
            inputs = self.segmenter.prepare(list(pixels))
            found = self.segmenter.mask_names(inputs, [heard[row] for row in rows])
            for row, each in zip(rows, found, strict=True):
                logits[row], labels[row] = self._join(each, heard[row], labels.shape[1:])
        return Prediction(logits, labels)

    def _join(
        self, logits: Tensor, names: Sequence[str], size: tuple[int, ...]
    ) -> tuple[Tensor, LabelArray]:
        """Return the logits and labels (H, W) of a frame, given those of its names, (K, h, w)."""
        height, width = size
        resized = self.model.network.text_sam.resize(logits[None].float(), (height, width))[0]
        highest, position = resized.max(dim=0)
        labels = np.array([self.labels[name] for name in names], np.uint16)
        return highest, labels[position.cpu().numpy()] * predicted_masks(highest).cpu().numpy()


def read_seconds(
    options: EvaluateOptions, video: PlannedVideo, rate_hz: int
) -> Iterator[AudioWindow]:
    """Yield every second of a video with the evaluated kind of audio; see `read_windows`."""
    samples = read_windows(options, video, rate_hz, range(video.clip.seconds))
    for second, one in enumerate(samples):
        yield AudioWindow(one, index=second, rate_hz=rate_hz)


def _at_frame(windows: Sequence[AudioWindow], second: int) -> AudioWindow:
    """Return the window that is heard at the frame of a second."""
    return next(window for window in windows if window.end_s > second + FRAME_OFFSET_S)


def hears_words(model: LoadedModel, options: EvaluateOptions) -> bool:
    """Return whether a model is evaluated by the words route."""
    return (options.hear or model.use) == "words"


def choose_names(
    model: LoadedModel, options: EvaluateOptions, plan: EvaluationPlan
) -> tuple[list[str], list[str]]:
    """Return the names that are used, and those that are left out.

    AVSBench-semantic's protocol allows only its classes, so other names are left out there.

    Raises:
        UsageError: A name is unknown, or no name is left.
        MediaError: The vocabulary file is not valid.
    """
    fixed = model.network.config.clap.names
    sources = choose_vocabulary(options.vocabulary, options.name, fixed=fixed).sources
    used = [
        source.name
        for source in sources
        if options.subset != "avss" or label_name(source, plan.label_names)
    ]
    if not used:
        raise UsageError(
            "no name of the vocabulary is a class of AVSBench-semantic; choose others with `name`"
        )
    return used, [source.name for source in sources if source.name not in used]


def label_name(source: Source, label_names: Sequence[str]) -> str | None:
    """Return what a source is called in the data, such as "playing_piano"; None if it is not."""
    names = (source.avss, source.s4, source.name, *source.synonyms)
    return next((name for name in names if name in label_names), None)


def read_windows(
    options: EvaluateOptions, video: PlannedVideo, rate_hz: int, seconds: Sequence[int]
) -> Float32Array:
    """Return the evaluated kind of audio for T seconds of a video as windows (T, n).

    Raises:
        MediaError: The audio is missing or corrupted.
    """
    if options.audio == "silence":
        return silence(len(seconds), rate_hz)
    if options.audio == "noise":
        return noise(len(seconds), rate_hz, np.random.default_rng((options.seed, video.index)))
    clip = video.donor or video.clip
    # The audio of a shorter donor is repeated.
    seconds = tuple(second % clip.seconds for second in seconds)
    return read_clip_windows(clip, seconds, rate_hz, reference=options.reference_audio)
