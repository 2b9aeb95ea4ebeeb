"""The use `words`: name what is heard, and mask each named source that is in view.

CLAP compares each second of audio with phrases for the sounds of a vocabulary, the text-prompted
SAM masks each source that is heard, and CLIP checks that it is in view. None of this needs training
on videos with sound. Letters: B frames, M pairs of a frame and a source that is heard in it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
from av2tsam_cli.model.text import SEMANTIC, tokenize
from av2tsam_cli.segment_options import SILENCE_DBFS, Hear, Timing
from av2tsam_cli.values import AudioWindow
from av2tsam_cli.words.hearing import load_hearing
from av2tsam_cli.words.references import reference_frames
from av2tsam_cli.words.scores import NamedPhrases, NameScores
from av2tsam_cli.words.seeing import crop_masked, in_view
from av2tsam_cli.words.vocabulary import Source, load_vocabulary

NO_MASK = -30.0
"""Logit of all pixels of a source that is not in view; finite, so that it can be interpolated."""


class WordsSegmenter(Segmenter):
    """Masks the sources of a vocabulary in the frames of one video, while they are heard.

    The windows for `source_logits` must come from `hear`.
    """

    USES = ("words", "trained")

    def __init__(
        self,
        model: LoadedModel,
        vocabulary: Path | None = None,
        names: Sequence[str] = (),
        *,
        silence_dbfs: float | None = SILENCE_DBFS,
    ) -> None:
        """Prepare a model for a video.

        Args:
            model: A model that was loaded for the use `words`.
            vocabulary: A vocabulary file; None for the built-in vocabulary.
            names: Use only the sources with these names or synonyms; empty for all.
            silence_dbfs: See `Hearing`.

        Raises:
            UsageError: A name is unknown, or the model does not support a word of the vocabulary.
            MediaError: The vocabulary file is not valid.
            WeightsError: The model has no text encoders, or a tokenizer is missing.
        """
        super().__init__(model)
        self.hearing = load_hearing(model, vocabulary, names, silence_dbfs=silence_dbfs)
        sources = self.hearing.vocabulary.sources
        self._seeing = self._load_seeing(sources)
        self._row = {source.name: row for row, source in enumerate(sources)}
        self._prompts, self._padding = self._embed_prompts(sources)

    def _load_seeing(self, sources: Sequence[Source]) -> NameScores:
        network, embedder = self.model.network, self.model.phrase_embedder("clip")

        def references() -> Tensor:
            pixels = torch.from_numpy(np.stack(reference_frames())).permute(0, 3, 1, 2)
            with torch.inference_mode():
                return network.embed_frames(pixels.to(self.model.device))

        template = "{}" if embedder.names else "a photo of {}"
        phrases = NamedPhrases(
            names=tuple((template.format(source.looks),) for source in sources),
            others=tuple(template.format(source.looks) for source in load_vocabulary().sources),
        )
        return NameScores(embedder, phrases, references)

    def _embed_prompts(self, sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
        """Return word embeddings (K, L, D) of the sources' prompts, and their padding (K, L)."""
        ids, padding = tokenize(self.model.tokenizer, [self._prompt(each) for each in sources])
        with torch.inference_mode():
            embeddings = self.model.network.embed_text(ids.to(self.model.device))
        return embeddings, padding.to(self.model.device)

    def _prompt(self, source: Source) -> str:
        if self.model.network.config.words:  # a small model, trained with articles
            return f"the {source.looks}"
        return f"{SEMANTIC} {source.looks}" if source.all_instances else source.looks

    @property
    def route(self) -> Hear:
        """See `Segmenter`."""
        return "words"

    def names_of(self, window: AudioWindow | None) -> tuple[str, ...]:
        """Return the names of the sources that are heard in a window."""
        return () if window is None else tuple(each.name for each in window.sources or ())

    def numbers_of(self, window: AudioWindow | None) -> tuple[int, ...]:
        """Return their numbers, in the order in which they are first heard."""
        return () if window is None else tuple(each.number for each in window.sources or ())

    def hear(
        self,
        seconds: Iterator[AudioWindow],
        timing: Timing = "paper",
        silence_dbfs: float | None = None,  # noqa: ARG002 - `hearing` has its own
    ) -> Iterator[AudioWindow]:
        """Yield windows with the sources that are heard in them; see `Hearing`."""
        return self.hearing.hear(seconds, timing)

    def without_samples(
        self,
        window: AudioWindow,
        silence_dbfs: float | None,  # noqa: ARG002 - the names are enough
    ) -> AudioWindow:
        """See `Segmenter`."""
        return window.without_samples(None)

    def _segment(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> Sequence[Tensor]:
        return self.mask_names(inputs, [self.names_of(window) for window in windows])

    def mask_names(self, inputs: FrameInputs, heard: Sequence[Sequence[str]]) -> list[Tensor]:
        """Mask named sources in B frames.

        Args:
            inputs: The frames, from `prepare`.
            heard: Names of the sources that are heard in each of the first frames; further frames
                are padding.

        Returns:
            Mask logits of each frame, (K, h, w) for its K names; NO_MASK for a source that is not
            in view.
        """
        counts = [len(names) for names in heard]
        device = inputs.sam.device
        rows = torch.tensor([self._row[name] for names in heard for name in names], device=device)
        images = torch.repeat_interleave(torch.tensor(counts)).to(device)
        with torch.inference_mode():
            logits, iou = self.model.network.segment_phrases(
                inputs.sam, inputs.beit, self._prompts[rows], self._padding[rows], images
            )
            seen = self._in_view(inputs, logits, iou, rows, images)
            logits = logits.masked_fill(~seen[:, None, None, None], NO_MASK)
        return list(torch.split(logits[:, 0], counts))

    def _in_view(
        self, inputs: FrameInputs, logits: Tensor, iou: Tensor, rows: Tensor, images: Tensor
    ) -> Tensor:
        """Return which of the M masks show the source with their name, bool, (M,)."""
        clip, rows = self.model.network.clip, rows.cpu()
        crops = crop_masked(inputs.sam[images], logits, clip.config.image_size)
        frame_scores = self._seeing(clip(inputs.clip))[images.cpu(), rows]
        crop_scores = self._seeing(clip(crops))[torch.arange(len(rows)), rows]
        return in_view(frame_scores, crop_scores, iou.cpu()).to(logits.device)
