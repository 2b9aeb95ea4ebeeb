"""Segment many videos with one model: the job, and the runner that processes its inputs.

Nothing is printed here, so that processes on other machines can use it too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av2tsam_cli.errors import NOT_A_FILE, Av2tsamError, UsageError
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
"""Stands for stdin: a list of files can be read from it, but not a video."""
MANY_FRAMES = 1_000_000
"""Enough frames for compiling to pay off, on devices that support it."""


@dataclass(frozen=True)
class Input:
    """A file to process."""

    path: Path
    """The file."""
    name: Path
    """Path of its output in the output folder, without a suffix, such as `day1/clip`."""
    suffix: str = ""
    """Suffix of the output, such as `.webm`; "" for the default of the format."""
    error: Av2tsamError | None = None
    """Why it cannot be processed, if that is known already."""


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
    """Folder for local copies of inputs and outputs with URLs; None for the system's temporary
    folder."""

    @property
    def staging_folder(self) -> Path:
        """The folder in which each process creates its own folder for copies."""
        from av2tsam_cli.staging import default_folder

        return self.staging or default_folder()

    @property
    def outs(self) -> dict[str, Path]:
        """The output files and folders that were chosen, by option."""
        sides = [name for name in SIDE_SUFFIXES if getattr(self.options, name) is not None]
        return {"out": self.out, **{name: getattr(self.options, name) for name in sides}}

    def targets(self, source: Input) -> tuple[Format, Path, dict[str, Path]]:
        """Return the format of an input's main output, its path, and the side files by option."""
        from av2tsam_cli.plan import place_output

        kind, output = place_output(self.out, source.name, self.options.format, source.suffix)
        return kind, output, self.options.sides(source.name)

    def outputs(self, source: Input) -> dict[str, Path]:
        """Return all outputs of an input, by option."""
        _, output, sides = self.targets(source)
        return {"out": output, **sides}

    def output_folders(self, source: Input) -> set[Path]:
        """Return the local folders that outputs of an input are written to."""
        return {path.parent for path in self.outputs(source).values() if url_of(path) is None}

    def with_local_outputs(self, staging: "Staging") -> "SegmentJob":
        """Return the job with local paths for the outputs that will be uploaded."""
        if not any(map(url_of, self.outs.values())):
            return self
        sides: dict[str, Any] = {name: staging.local_path(path) for name, path in self.outs.items()}
        return replace(self, out=sides.pop("out"), options=replace(self.options, **sides))


@dataclass(frozen=True)
class _PreparedInput:
    """An input that is on this computer."""

    path: Path
    """The file."""
    options: SegmentOptions
    """The options for it."""


class JobRunner:
    """Processes the inputs of a job one by one; the model is loaded once, when it is needed."""

    def __init__(self, job: SegmentJob, note: Callable[[str], None]) -> None:
        """Prepare a job.

        Args:
            job: The job.
            note: Called with each line of information about an input.
        """
        self.job = job
        self.note = note
        self._model: ModelIdentity | None = None
        self._segmenter: Segmenter | None = None
        self._prefetched: tuple[Input, Background[_PreparedInput | None]] | None = None
        self._kept: tuple[Input, SegmentPlan] | None = None

    def close(self) -> None:
        """Remove all local copies."""
        if "_staging" in vars(self):
            self._staging.close()

    @cached_property
    def _staging(self) -> "Staging":
        from av2tsam_cli.staging import Staging  # imports FFmpeg, so not before forking

        return Staging(self.job.staging)

    @cached_property
    def _local_job(self) -> SegmentJob:
        """The job with local outputs."""
        return self.job.with_local_outputs(self._staging)

    def check_stores(self) -> None:
        """Check that outputs can be uploaded, before any work is done.

        Raises:
            UsageError: There is no such bucket.
            Av2tsamError: A store cannot be reached, or denies access.
        """
        for out in self.job.outs.values():
            if url_of(out) is not None:
                check_writable(str(out) if not out.suffix else str(out).rpartition("/")[0])

    def identify(self) -> "ModelIdentity":
        """Return which model will be loaded, to compare existing outputs with it.

        Raises:
            WeightsError: It is not installed.
            UsageError: It does not support the options.
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

    def plan(self, source: Input, *, retry: bool = False) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped because its output is complete.

        An input with a URL is copied to this computer, and the copy is removed when the input has
        been segmented, or by `drop`.

        Args:
            source: The input.
            retry: Whether an earlier attempt was lost, which may have written the output.

        Raises:
            UsageError: See `plan_video`.
            MediaError: See `plan_video`.
            WeightsError: See `identify`.
            Av2tsamError: A store cannot be reached, or denies access, or the disk is full.
        """
        from av2tsam_cli.plan import plan_video

        prepared = self._get_prepared(source, retry=retry)
        if prepared is None:
            return None
        path, options = prepared.path, prepared.options
        try:
            return plan_video(
                path, self._local_job.out, options, name=source.name, suffix=source.suffix
            )
        except BaseException:
            self._staging.drop(path)
            raise
        finally:
            self._discard_outputs(source)

    def plan_and_keep(self, source: Input, *, retry: bool = False) -> "SegmentPlan | None":
        """Check an input like `plan`, but keep its plan and copy for further calls."""
        if self._kept is not None:
            kept, kept_plan = self._kept
            if kept == source and not retry:  # an earlier attempt may have written the output since
                return kept_plan
            self.drop(kept_plan)
        plan = self.plan(source, retry=retry)
        self._kept = None if plan is None else (source, plan)
        return plan

    def prefetch(self, source: Input) -> None:
        """Start to copy the next input in the background, if it is in a store."""
        if is_stored(source.path):
            self._prefetched = (
                source,
                Background(partial(self._prepare, source, retry=False), "stage"),
            )

    def drop(self, plan: "SegmentPlan") -> None:
        """Remove the copy of an input that is no longer needed."""
        if self._kept is not None and self._kept[1] is plan:
            self._kept = None
        self._staging.drop(plan.info.path)

    def _get_prepared(self, source: Input, *, retry: bool) -> _PreparedInput | None:
        """Return an input on this computer; None if it is skipped."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None and prefetched[0] == source and not retry:
            return prefetched[1].result()
        return self._prepare(source, retry=retry)

    def _prepare(self, source: Input, *, retry: bool) -> _PreparedInput | None:
        """Check existing outputs of an input, and copy it to this computer unless it is skipped."""
        from av2tsam_cli.outputs.writers import check_target

        options, kept = self._local_job.options, False
        kind, output, sides = self._local_job.targets(source)
        try:
            for each in (output, *sides.values()):
                self._staging.mirror(each)
            if self.job.skip_existing or retry:
                why = self._why_replaced(source)
                if why == "" and self.job.skip_existing:
                    return None
                options = replace(options, overwrite=options.overwrite or why is not None)
            if is_stored(source.path):  # before it is copied
                check_target(output, kind, source=source.path, overwrite=options.overwrite)
            prepared = _PreparedInput(self._staging.fetch(source.path), options)
            kept = True
        finally:
            if not kept:
                self._discard_outputs(source)
        return prepared

    def _discard_outputs(self, source: Input) -> None:
        for each in self._local_job.outputs(source).values():
            self._staging.discard(each)

    def _why_replaced(self, source: Input) -> str | None:
        """Return why an existing output is replaced; "" if it is kept, None if there is none.

        Raises:
            UsageError: It differs, but `overwrite` is not set.
        """
        from av2tsam_cli.outputs.record import why_different
        from av2tsam_cli.plan import record_of

        model = self._model or self.identify()
        kind, output, sides = self._local_job.targets(source)
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
        if not why:  # the main output would be the same
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
            frames: Number of frames, which decides whether to compile; None for many.

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
            Av2tsamError: See `segment_planned`, or a store cannot be reached, or denies access.
        """
        from av2tsam_cli.pipeline import segment_planned

        result = self.finish(plan, lambda: segment_planned(plan, self.load(), progress=progress))
        self.note(summary(result))
        return result

    def finish(self, plan: "SegmentPlan", make: Callable[[], "SegmentResult"]) -> "SegmentResult":
        """Create the outputs of a plan, and upload them.

        Args:
            plan: The plan.
            make: Creates the outputs, and returns the result.

        Raises:
            Av2tsamError: See `make`, or a store cannot be reached, or denies access.
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


def skip_message(output: Path) -> str:
    """Return the message for an input that is skipped because its output exists."""
    return f"skipped, {output} is complete and made with the same options"


def summary(result: "SegmentResult") -> str:
    """Return a line that summarises a result."""
    speed = result.frames / result.wall_s
    what = "a sound source" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )


def check_input(given: Input) -> None:
    """Check that an input is a file, not a folder, a pipe or a device.

    Raises:
        UsageError: It is not.
        Av2tsamError: It is known why it cannot be processed.
    """
    if given.error is not None:
        raise given.error
    source = given.path
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
    """Return why no inputs were found in a folder."""
    try:
        os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        return f"cannot be listed ({error.strerror}); check its permissions"
    return (
        "a folder without videos, apart from hidden files and those in `out`; set `recursive` to "
        "search its folders, choose another `out`, or name files"
    )
