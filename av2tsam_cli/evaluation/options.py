"""Options of `av2tsam evaluate`; importing them does not import PyTorch."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from av2tsam_cli.avsbench_format import DATA_NAME, Split
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import (
    BatchSize,
    Cache,
    Data,
    DataRoot,
    Devices,
    Option,
    Overwrite,
    Panel,
    SkipBad,
    Strict,
    SubsetOption,
    VocabularyOptions,
    check_values,
)
from av2tsam_cli.segment_options import SILENCE_DBFS, WORDS_ONLY, Hear, Timing

ScoringProtocol = Literal["avsbench", "reference"]
"""Whether F is computed on probabilities, as in AVSBench, or on raw logits, as in the AV2T-SAM
reference implementation."""


def parse_silence_dbfs(text: str) -> float:
    """Read a level in dBFS; `off` is minus infinity, which no level is below."""
    try:
        return -math.inf if text == "off" else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a level; use for example -60, or off") from None


@dataclass(frozen=True)
class EvaluateOptions(VocabularyOptions):
    """What to evaluate and how. Values are checked on construction."""

    data: Data = DATA_NAME
    """`avsbench`, or the folder of a data set in its format."""
    data_root: DataRoot = None
    """Folder of AVSBench; None for `$AVSBENCH_ROOT`, else `./avsbench_data`."""
    subset: SubsetOption = "s4"
    """`s4`, `ms3` or `avss`."""
    split: Annotated[Split, Option("split to evaluate", panel=Panel.DATA)] = "test"
    """`train`, `val` or `test`."""
    limit: Annotated[
        int | None,
        Option(
            "evaluate only the first N videos of the split",
            panel=Panel.DATA,
            metavar="N",
            default="all",
            minimum=1,
        ),
    ] = None
    """Number of videos to evaluate, from the start of the split; None for all."""
    skip_bad: SkipBad = False
    """Skip videos with missing or corrupted files instead of raising an error."""
    strict: Strict = False
    """Raise an error instead of using raw videos in place of missing frames or WAV files."""
    cache: Cache = None
    """Folder of the embedding cache; None for the one that all commands share."""
    predictions: Annotated[
        Path | None,
        Option(
            "score the masks or logits in this folder instead of running a model: PNGs in the "
            "layout of AVSBench, or what --save-masks or --save-logits wrote",
            panel=Panel.DATA,
            metavar="DIR",
        ),
    ] = None
    """Folder with masks or logits to score; None to run a model."""
    hear: Annotated[
        Hear | None,
        Option(
            "how the model finds sound sources: as it was trained to, or by the words of a "
            "vocabulary that describe what is heard",
            panel=Panel.NAMES,
            default="trained if the model was, else words",
        ),
    ] = None
    """`trained` for the audio part of the model, `words` to name what is heard and segment each
    name; None for `trained` if the model has such a part."""
    timing: Annotated[
        Timing,
        Option(
            "paper gives each frame its whole second of sound; fine finds when sources start and "
            "stop, as 'av2tsam segment' does",
            panel=Panel.NAMES,
        ),
    ] = "paper"
    """`paper` for the whole second of sound, `fine` to find when sources start and stop."""
    audio: Annotated[
        Literal["original", "silence", "noise", "offscreen"],
        Option(
            "original evaluates each video with its own audio; the others add negative audio, "
            "which matches nothing in the picture: digital silence, full-scale white noise, or "
            "the audio of a video of another category in the split",
            panel=Panel.SCORING,
        ),
    ] = "original"
    """Each video's own audio, or negative audio to evaluate in addition."""
    protocol: Annotated[
        ScoringProtocol,
        Option(
            "avsbench, or the AV2T-SAM reference code, which computes F on raw logits and has no "
            "silence gate",
            panel=Panel.SCORING,
        ),
    ] = "avsbench"
    """The rules by which F is computed."""
    reference_audio: Annotated[
        bool,
        Option(
            "prepare audio as the reference code does: sinc resampling, channels one after the "
            "other",
            panel=Panel.SCORING,
        ),
    ] = False
    """Prepare audio as the reference does: sinc resampling, channels one after the other."""
    silence_dbfs: Annotated[
        float | None,
        Option(
            "quieter seconds of audio get empty masks, in dB relative to full scale; 'off' for "
            "none",
            panel=Panel.ADVANCED,
            metavar="LEVEL",
            parse=parse_silence_dbfs,
            default="-60 as in segment, off with --protocol reference",
        ),
    ] = None
    """Seconds of audio below this level get an empty mask, in dB relative to full scale; -inf to
    switch this off. None: -60 as in `segment`, or -inf with the reference protocol."""
    seed: Annotated[
        int,
        Option(
            "random seed for noise, for the choice of off-screen audio and for the confidence "
            "intervals",
            panel=Panel.ADVANCED,
            metavar="N",
            minimum=0,
        ),
    ] = 0
    """Seed for noise, for the choice of off-screen audio and for the confidence intervals."""
    batch_size: BatchSize = None
    """Frames per forward pass; None for a number that suits the device and the model."""
    devices: Devices = 1
    """Number of processes that the command starts, each on its own device."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range, or does not go with another one.
        """
        check_values(self)
        if self.hear == "trained":
            self.check_unnamed()
        if self.hear == "words" and self.reference_audio:
            raise UsageError("`reference_audio` has no effect with `hear` words; omit one of them")
        if self.timing == "fine" and self.reference_audio:
            raise UsageError("`reference_audio` has no effect with `timing` fine; omit one of them")
        if self.predictions is None:
            return
        if not self.predictions.is_dir():
            raise UsageError(f"{self.predictions}: folder not found; check `predictions`")
        options = ("audio", "reference_audio", "silence_dbfs", "hear", "timing", *WORDS_ONLY)
        defaults = {field.name: field.default for field in fields(self)}
        for name in options:
            if getattr(self, name) != defaults[name]:
                raise UsageError(
                    f"`{name}` has no effect on `predictions`, which are scored as they are; omit "
                    "one of them"
                )

    def check_unnamed(self) -> None:
        """Check that no option needs the words route, for a model that does not name its masks.

        Raises:
            UsageError: An option does.
        """
        for option in WORDS_ONLY:
            if getattr(self, option):
                raise UsageError(f"`{option}` needs sources with names; set `hear` to words")

    @property
    def gate_dbfs(self) -> float:
        """The level below which a second counts as silent; -inf if the gate is off."""
        if self.silence_dbfs is not None:
            return self.silence_dbfs
        return SILENCE_DBFS if self.protocol == "avsbench" else -math.inf


@dataclass(frozen=True)
class EvaluateOutputs:
    """Files to write besides the scores."""

    csv: Annotated[
        Path | None,
        Option("write one line per video", panel=Panel.OUTPUT, metavar="FILE"),
    ] = None
    """CSV with one line per video."""
    contact_sheet: Annotated[
        Path | None,
        Option(
            "draw the worst and the best videos: predicted masks highlighted, true masks outlined",
            panel=Panel.OUTPUT,
            metavar="PNG",
        ),
    ] = None
    """PNG with the worst and the best videos."""
    video: Annotated[
        Path | None,
        Option(
            "write a video of the worst and the best results: frame, prediction and true mask side "
            "by side, with the sound",
            panel=Panel.OUTPUT,
            metavar="MP4",
        ),
    ] = None
    """MP4 with the worst and the best videos."""
    save_logits: Annotated[
        Path | None,
        Option(
            "write the logits to a new folder, as one float16 .npz per video",
            panel=Panel.OUTPUT,
            metavar="DIR",
        ),
    ] = None
    """New folder for the logits of the predicted masks."""
    save_masks: Annotated[
        Path | None,
        Option(
            "write the masks to a new folder, as PNGs in the layout of AVSBench's gt_masks; masks "
            "with names get the colours of their classes for --subset avss",
            panel=Panel.OUTPUT,
            metavar="DIR",
        ),
    ] = None
    """New folder for the predicted masks."""
    overwrite: Overwrite = False
    """Replace existing files."""
