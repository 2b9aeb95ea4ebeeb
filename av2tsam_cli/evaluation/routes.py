"""How a model predicts the masks of a video: as it was trained to, from cached embeddings.

Letters: T labelled seconds of a video, H, W size of its masks, A width of CLAP's embeddings, n
samples of a window.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.data.cache import EmbeddingCache, levels_dbfs
from av2tsam_cli.data.clips import read_clip_windows
from av2tsam_cli.data.samples import Sample, read_sample
from av2tsam_cli.errors import MediaError
from av2tsam_cli.evaluation.negative_audio import noise, silence
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.plan import PlannedVideo
from av2tsam_cli.evaluation.scoring import predict
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.values import Float32Array


class TrainedRoute:
    """Predicts masks with the audio part of a model, from cached embeddings."""

    def __init__(self, model: LoadedModel, options: EvaluateOptions, cache: EmbeddingCache) -> None:
        self.model, self.options, self.cache = model, options, cache
        self.problems = {problem.clip: problem.message for problem in cache.skipped}

    def read(self, video: PlannedVideo) -> tuple[Sample, ...]:
        """Read a video with its original audio and, if evaluated, with negative audio.

        Raises:
            MediaError: A file is missing or corrupted.
        """
        if video.clip in self.problems:
            raise MediaError(self.problems[video.clip])
        original = read_sample(video.clip, self.model.network.config, self.cache.read)
        if self.options.audio == "original":
            return (original,)
        clap, level_dbfs = self._negative_audio(video)
        embeddings = original.embeddings._replace(clap=clap, level_dbfs=level_dbfs)
        return (original, replace(original, embeddings=embeddings))

    def predict(self, sample: Sample) -> Tensor:
        """Return mask logits, float32, (T, H, W), on the model's device."""
        batch_size = self.options.batch_size or self.model.batch_size
        return predict(self.model.network, sample, self.model.device, batch_size)

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
