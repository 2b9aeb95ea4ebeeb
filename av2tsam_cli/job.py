"""Segment many videos with one model: what to do with each of them, and doing it.

Nothing is printed here, so that a process on another machine can do the same work.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from glob import has_magic
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from av2tsam_cli.errors import NOT_A_FILE, UsageError
from av2tsam_cli.network import is_remote, is_stored, url_of, without_copy
from av2tsam_cli.options import ModelOptions
from av2tsam_cli.segment_options import SIDE_SUFFIXES, Format, SegmentOptions
from av2tsam_cli.stores import check_writable
from av2tsam_cli.threads import Background

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import ModelIdentity
    from av2tsam_cli.inference.segmenter import Segmenter
    from av2tsam_cli.pipeline import SegmentResult
    from av2tsam_cli.plan import SegmentPlan
    from av2tsam_cli.staging import Staging

NANO_NOTE = (
    "using nano, a demo model that only recognises drawn scenes; for real videos, run "
    "'av2tsam models pull real' (5.6 GB; not tested by this project with the published weights)"
)
"""Printed if nano is used because no other model is installed. The weights of the networks that
follow sound may be unpublished."""

STDIN = Path("-")
"""A list of files that is read from stdin; videos cannot be."""
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
    staging: Path | None = None
    """Where inputs and outputs that have URLs are copied; None for the system's folder for
    temporary files."""

    @property
    def staging_folder(self) -> Path:
        """The folder of a computer in which the folders of processes for copies are."""
        from av2tsam_cli.staging import default_folder

        return self.staging or default_folder()

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

    def output_folders(self, source: Input) -> set[Path]:
        """Return the folders of this computer in which something is written for an input."""
        return {path.parent for path in self.outputs(source).values() if url_of(path) is None}

    def written_in(self, staging: "Staging") -> "SegmentJob":
        """Return the job with local outputs instead of those that are to be uploaded."""
        if not any(map(url_of, self.outs.values())):
            return self
        sides: dict[str, Any] = {name: staging.local(path) for name, path in self.outs.items()}
        return replace(self, out=sides.pop("out"), options=replace(self.options, **sides))


@dataclass(frozen=True)
class _Ready:
    """An input that can be opened on this computer."""

    path: Path
    """The file."""
    options: SegmentOptions
    """The options for it."""


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
        self._next: tuple[Input, Background[_Ready | None]] | None = None
        self._kept: tuple[Input, SegmentPlan] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was copied to this computer."""
        if "_staging" in vars(self):
            self._staging.close()

    @cached_property
    def _staging(self) -> "Staging":
        from av2tsam_cli.staging import Staging  # imports FFmpeg; the process may be forked before

        return Staging(self.job.staging)

    @cached_property
    def _local(self) -> SegmentJob:
        """The job, with a local file or folder for each output."""
        return self.job.written_in(self._staging)

    def check_stores(self) -> None:
        """Check before any work that the folders in stores can be written.

        Raises:
            UsageError: There is no such bucket.
            Av2tsamError: A store cannot be reached, or refuses.
        """
        for out in self.job.outs.values():
            if url_of(out) is not None:
                check_writable(str(out) if not out.suffix else str(out).rpartition("/")[0])

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

    def plan(self, source: Input, *, again: bool = False) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped, because its output is complete.

        One that has a URL is copied to this computer, until it is segmented or `drop` is called.

        Args:
            source: The input.
            again: Whether an earlier attempt was lost, so that its output may be there.

        Raises:
            UsageError: See `plan_video`.
            MediaError: See `plan_video`.
            WeightsError: See `identify`.
            Av2tsamError: A store cannot be reached, or refuses, or the disk is full.
        """
        from av2tsam_cli.plan import plan_video

        ready = self._ready(source, again=again)
        if ready is None:
            return None
        try:
            return plan_video(
                ready.path, self._local.out, ready.options, name=source.name, suffix=source.suffix
            )
        except BaseException:
            self._staging.drop(ready.path)
            raise
        finally:
            self._forget_outputs(source)

    def keep(self, source: Input, *, again: bool = False) -> "SegmentPlan | None":
        """Check an input like `plan`, and keep its copy for the next call with the same input."""
        if self._kept is not None:
            kept, kept_plan = self._kept
            if kept == source:
                return kept_plan
            self.drop(kept_plan)
        plan = self.plan(source, again=again)
        self._kept = None if plan is None else (source, plan)
        return plan

    def expect(self, source: Input) -> None:
        """Begin to copy the input that is planned next, if it is in a store."""
        if is_stored(source.path):
            self._next = source, Background(partial(self._prepare, source, again=False), "stage")

    def drop(self, plan: "SegmentPlan") -> None:
        """Remove the copy of an input that is not needed any more."""
        if self._kept is not None and self._kept[1] is plan:
            self._kept = None
        self._staging.drop(plan.info.path)

    def _ready(self, source: Input, *, again: bool) -> _Ready | None:
        """Return an input that can be opened; None if it is skipped."""
        expected, self._next = self._next, None
        if expected is not None and expected[0] == source and not again:
            return expected[1].result()
        return self._prepare(source, again=again)

    def _prepare(self, source: Input, *, again: bool) -> _Ready | None:
        """Look at the outputs of an input, and copy it to this computer if they are wanted."""
        from av2tsam_cli.outputs.writers import check_target

        options, kept = self._local.options, False
        kind, output, sides = self._local.place(source)
        try:
            for each in (output, *sides.values()):
                self._staging.mirror(each)
            if self.job.skip_existing or again:
                why = self._why_again(source)
                if why == "" and self.job.skip_existing:
                    return None
                options = replace(options, overwrite=options.overwrite or why is not None)
            if is_stored(source.path):  # before it is copied
                check_target(output, kind, source=source.path, overwrite=options.overwrite)
            ready = _Ready(self._staging.fetch(source.path), options)
            kept = True
        finally:
            if not kept:
                self._forget_outputs(source)
        return ready

    def _forget_outputs(self, source: Input) -> None:
        for each in self._local.outputs(source).values():
            self._staging.discard(each)

    def _why_again(self, source: Input) -> str | None:
        """Return why an existing output is replaced; "" if it is kept, None if there is none.

        Raises:
            UsageError: It is another one and may not be replaced.
        """
        from av2tsam_cli.outputs.record import why_different
        from av2tsam_cli.plan import record_of

        model = self._model or self.identify()
        kind, output, sides = self._local.place(source)
        if not os.path.lexists(output):
            return None
        if output.is_dir() and not any(output.iterdir()):
            return "an empty folder"
        record = record_of(source.path, self.job.options, kind, output, sides=sides, model=model)
        why = why_different(output if output.is_dir() else without_copy(output), record.fingerprint)
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
    def has_fallback(self) -> bool:
        """Whether nano was loaded because no other model is installed."""
        return (
            self.job.model.model is None
            and self._segmenter is not None
            and self._segmenter.model.name == "nano"
        )

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
        """Segment one input, and upload its outputs; see `segment_planned`.

        Raises:
            Av2tsamError: See `segment_planned`, or a store cannot be reached, or refuses.
        """
        from av2tsam_cli.pipeline import segment_planned

        result = self.finish(plan, lambda: segment_planned(plan, self.load(), progress=progress))
        self.note(summary(result))
        return result

    def finish(self, plan: "SegmentPlan", make: Callable[[], "SegmentResult"]) -> "SegmentResult":
        """Make the result of a plan, and upload its outputs.

        Args:
            plan: The plan.
            make: Makes the result.

        Raises:
            Av2tsamError: It cannot be made, or a store cannot be reached, or refuses.
        """
        if plan.audio is None and plan.options.text is None:
            self.note(f"{plan.info.path}: no audio, so all masks are empty")
        try:
            result = make()
            for output in result.outputs:  # the main output first
                self._staging.publish(output)
        finally:
            self.drop(plan)
            for output in (plan.output, *plan.sides.values()):
                self._staging.discard(output)
        return replace(
            result,
            input=without_copy(result.input),
            outputs=tuple(map(without_copy, result.outputs)),
        )


def why_skipped(output: Path) -> str:
    """Return what is said about an input that is skipped because of its output."""
    return f"skipped, {output} is complete and made with the same options"


def summary(result: "SegmentResult") -> str:
    """Return a line about a result."""
    speed = result.frames / result.wall_s
    what = "a sound source" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )


def check_input(source: Path) -> None:
    """Check that an input is a file, not a folder, a pipe or a device.

    Raises:
        UsageError: It is not.
    """
    if is_remote(source) or source.is_file():
        return
    if source.is_dir():
        raise UsageError(f"{source}: {_why_empty(source)}")
    if not source.exists():
        if source.is_symlink():
            raise UsageError(f"{source}: a symbolic link to no file; check where it points")
        if source == STDIN:
            raise UsageError("-: stdin is not supported; save the input to a file first")
        matches = "no file matches; check the pattern" if has_magic(str(source)) else ""
        raise UsageError(f"{source}: {matches or 'file not found; check the path'}")
    raise UsageError(f"{source}: {NOT_A_FILE}")


def _why_empty(folder: Path) -> str:
    """Return why a folder stands for no files."""
    try:
        os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        return f"cannot be listed ({error.strerror}); check its permissions"
    return (
        "a folder without videos, apart from hidden files and those in `out`; set `recursive` to "
        "search its folders, or name files"
    )
