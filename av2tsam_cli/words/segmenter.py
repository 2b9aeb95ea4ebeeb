"""The words route: name what is heard, and mask each named source that is in view.

CLAP compares a second of audio with how the sources of a vocabulary sound, the text-prompted SAM
masks each source that is heard, and CLIP checks that it is in view. Nothing of this needs training
on videos with sound. Letters: B frames, M pairs of a frame and a source that is heard in it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
from av2tsam_cli.model.text import PAD, SEMANTIC
from av2tsam_cli.segment_options import SILENCE_DBFS
from av2tsam_cli.values import AudioWindow
from av2tsam_cli.words.hearing import CONTEXT_S, load_hearing
from av2tsam_cli.words.references import reference_frames
from av2tsam_cli.words.scores import NamedPhrases, NameScores
from av2tsam_cli.words.seeing import crop_masked, in_view
from av2tsam_cli.words.vocabulary import Source, Vocabulary, load_vocabulary

NO_MASK = -30.0
"""Logit of every pixel of a source that is not in view; finite, so that it can be interpolated."""


class WordsSegmenter(Segmenter):
    """Masks the sources of a vocabulary in the frames of one video, while they are heard.

    `hear` must have listened to the windows that are passed to `source_logits`.
    """

    def __init__(
        self,
        model: LoadedModel,
        vocabulary: Vocabulary,
        *,
        context_s: int = CONTEXT_S,
        silence_dbfs: float | None = SILENCE_DBFS,
    ) -> None:
        """Prepare a model for a video.

        Args:
            model: A model that was loaded for words.
            vocabulary: The sources, from `choose_vocabulary`.
            context_s: See `Hearing`.
            silence_dbfs: See `Hearing`.

        Raises:
            UsageError: The model does not support a word of the vocabulary.
            WeightsError: The model has no text encoders, or a tokenizer is missing.
        """
        super().__init__(model)
        self.hearing = load_hearing(
            model, vocabulary, context_s=context_s, silence_dbfs=silence_dbfs
        )
        self._seeing = self._load_seeing(vocabulary)
        self._row = {source.name: row for row, source in enumerate(vocabulary.sources)}
        self._prompts, self._padding = self._embed_prompts(vocabulary.sources)

    def _load_seeing(self, vocabulary: Vocabulary) -> NameScores:
        network, embedder = self.model.network, self.model.phrase_embedder("clip")

        def references() -> Tensor:
            pixels = torch.from_numpy(np.stack(reference_frames())).permute(0, 3, 1, 2)
            with torch.inference_mode():
                return network.embed_frames(pixels.to(self.model.device))

        template = "{}" if embedder.names else "a photo of {}"
        phrases = NamedPhrases(
            names=tuple((template.format(source.looks),) for source in vocabulary.sources),
            others=tuple(template.format(source.looks) for source in load_vocabulary().sources),
        )
        return NameScores(embedder, phrases, references)

    def _embed_prompts(self, sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
        """Return word embeddings (K, L, D) of the sources' prompts, and their padding (K, L)."""
        rows = [self.model.tokenizer(self._prompt(source))[0] for source in sources]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        ids = ids.to(self.model.device)
        with torch.inference_mode():
            return self.model.network.embed_text(ids), ids == PAD

    def _prompt(self, source: Source) -> str:
        if self.model.network.config.words:  # a small model, trained with articles
            return f"the {source.looks}"
        return f"{SEMANTIC} {source.looks}" if source.all_instances else source.looks

    def hear(self, windows: Iterator[AudioWindow]) -> Iterator[AudioWindow]:
        """Yield the windows with the sources that are heard in them."""
        return self.hearing.hear(windows)

    def _logits(
        self, inputs: FrameInputs, windows: Sequence[AudioWindow], start: int, stop: int
    ) -> Sequence[Tensor]:
        heard = [[s.name for s in window.sources or ()] for window in windows[start:stop]]
        if (start, stop) != (0, len(inputs.sam)):
            inputs = inputs.slice(start, stop, stop - start)
        return self.mask_names(inputs, heard)

    def mask_names(self, inputs: FrameInputs, heard: Sequence[Sequence[str]]) -> list[Tensor]:
        """Mask what is heard in B frames.

        Args:
            inputs: The frames, from `prepare`.
            heard: Names of the sources that are heard in each frame.

        Returns:
            Mask logits of each frame, (K, h, w) for its K names; NO_MASK if one is not in view.
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
        """Return which of the M masks show what they are named after, bool, (M,)."""
        clip, rows = self.model.network.clip, rows.cpu()
        crops = crop_masked(inputs.sam[images], logits, clip.config.image_size)
        frame_scores = self._seeing(clip(inputs.clip))[images.cpu(), rows]
        crop_scores = self._seeing(clip(crops))[torch.arange(len(rows)), rows]
        return in_view(frame_scores, crop_scores, iou.cpu()).to(logits.device)
