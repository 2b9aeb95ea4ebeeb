"""Segment many videos with one model: what to do with each of them, and doing it.

Nothing is printed here, so that a process on another machine can do the same work.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import ModelOptions
from av2tsam_cli.segment_options import SIDE_SUFFIXES, Format, SegmentOptions

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import ModelIdentity
    from av2tsam_cli.inference.segmenter import Segmenter
    from av2tsam_cli.pipeline import SegmentResult
    from av2tsam_cli.plan import SegmentPlan

MANY_FRAMES = 1_000_000
"""Frames for which compiling always pays, on devices on which it can."""


@dataclass(frozen=True)
class Input:
    """A file to process."""

    path: Path
    """The file."""
    name: Path
    """Where its output goes in the folder of outputs, without a suffix, such as `day1/clip`."""
    suffix: str = ""
    """How the name of the output ends, such as `.webm`; "" for what suits the format."""


@dataclass(frozen=True)
class SegmentJob:
    """What to do with each of many videos."""

    out: Path
    """A video file, or a folder."""
    options: SegmentOptions
    """What to segment in each video, and how."""
    model: ModelOptions
    """Which model to use."""
    compile: bool = False
    """Whether to compile the network if that saves time."""
    skip_existing: bool = False
    """Whether to skip inputs whose output was made from them with the same options and model."""

    @property
    def outs(self) -> dict[str, Path]:
        """The files and folders that the options name for outputs, by these options."""
        sides = [name for name in SIDE_SUFFIXES if getattr(self.options, name) is not None]
        return {"out": self.out, **{name: getattr(self.options, name) for name in sides}}

    def place(self, source: Input) -> tuple[Format, Path, dict[str, Path]]:
        """Return the format for an input, its main output, and the files beside it by option."""
        from av2tsam_cli.plan import place_output

        kind, output = place_output(self.out, source.name, self.options.format, source.suffix)
        return kind, output, self.options.sides(source.name)

    def outputs(self, source: Input) -> dict[str, Path]:
        """Return everything that is written for an input, by the options that ask for it."""
        _, output, sides = self.place(source)
        return {"out": output, **sides}


class JobRunner:
    """Does a job for one input after the other; the model is loaded once, when it is needed."""

    def __init__(self, job: SegmentJob, note: Callable[[str], None]) -> None:
        """Begin a job.

        Args:
            job: The job.
            note: Called with each line of information about an input.
        """
        self.job = job
        self.note = note
        self._model: ModelIdentity | None = None
        self._segmenter: Segmenter | None = None

    def identify(self) -> "ModelIdentity":
        """Return which model will be loaded; existing outputs are compared with it.

        Raises:
            WeightsError: It is not installed.
            UsageError: It cannot do what the options ask for.
        """
        from av2tsam_cli.inference.loading import identify

        choice = self.job.model
        self._model = identify(
            choice.model,
            use=self.job.options.use,
            device=choice.device,
            precision=choice.precision,
        )
        return self._model

    def plan(self, source: Input) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped, because its output is complete.

        Raises:
            UsageError: See `plan_video`.
            MediaError: See `plan_video`.
            WeightsError: See `identify`.
        """
        from av2tsam_cli.plan import plan_video

        options = self.job.options
        if self.job.skip_existing:
            again = self._why_again(source)
            if again == "":
                return None
            options = replace(options, overwrite=options.overwrite or again is not None)
        return plan_video(
            source.path, self.job.out, options, name=source.name, suffix=source.suffix
        )

    def _why_again(self, source: Input) -> str | None:
        """Return why an existing output is replaced; "" if it is kept, None if there is none.

        Raises:
            UsageError: It is another one and may not be replaced.
        """
        from av2tsam_cli.outputs.record import why_different
        from av2tsam_cli.plan import record_of

        model = self._model or self.identify()
        kind, output, sides = self.job.place(source)
        if not os.path.lexists(output):
            return None
        if output.is_dir() and not any(output.iterdir()):
            return "an empty folder"
        record = record_of(source.path, self.job.options, kind, output, sides=sides, model=model)
        why = why_different(output, record.fingerprint)
        if why and not self.job.options.overwrite:
            raise UsageError(
                f"{output}: already exists, but {why}; set `overwrite` to replace it, or choose "
                "another path"
            )
        if not why:  # it would become the same again
            missing = [side for side in sides.values() if not side.exists()]
            why = f"{missing[0]} is missing" if missing else ""
        if why:
            self.note(f"{output}: is replaced ({why})")
        return why

    @property
    def is_loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._segmenter is not None

    def load(self, frames: int | None = None) -> "Segmenter":
        """Load the model, if it is not loaded yet.

        Args:
            frames: Number of frames to come, by which `compile` is decided; None if there are many.

        Raises:
            UsageError: See `load_for`.
            WeightsError: See `load_for`.
        """
        from av2tsam_cli.pipeline import load_for

        if self._segmenter is None:
            choice = self.job.model
            self._segmenter = load_for(
                self.job.options,
                choice.model,
                device=choice.device,
                precision=choice.precision,
                compile_frames=(MANY_FRAMES if frames is None else frames) * self.job.compile,
            )
        return self._segmenter

    def segment(
        self, plan: "SegmentPlan", progress: Callable[[int], None] | None = None
    ) -> "SegmentResult":
        """Segment one input; see `segment_planned`."""
        from av2tsam_cli.pipeline import segment_planned

        if plan.audio is None and plan.options.text is None:
            self.note(f"{plan.info.path}: no audio, so all masks are empty")
        result = segment_planned(plan, self.load(), progress=progress)
        self.note(_summary(result))
        return result


def _summary(result: "SegmentResult") -> str:
    speed = result.frames / result.wall_s
    what = "a sound source" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )
