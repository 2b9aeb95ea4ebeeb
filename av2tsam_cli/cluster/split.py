"""Long videos on many workers: one hears a video, all segment its parts, the last one joins them.

The parts are in a hidden folder beside the output, or in the folder for copies of an output that is
uploaded. All computers of a cluster must have this folder in common.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.cluster.tasks import Outcome, Task
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import temporary_path
from av2tsam_cli.job import Input, JobRunner, SegmentJob, check_input
from av2tsam_cli.network import url_of

if TYPE_CHECKING:
    from av2tsam_cli.parts import Heard, Part, PartResult

HEARD_AFTER_S = 60.0
"""Seconds of sound after a part that come with it, for the frames after it that are computed."""


@dataclass(frozen=True)
class CutTask(Task):
    """A video to hear and to cut into parts. The value of its outcome is a tuple of `PartTask`."""

    seconds: int = 0
    """Length of the parts."""
    folder: Path = Path()
    """Where they are written."""

    HAS_LIMIT = False

    def do(self, runner: JobRunner) -> Outcome:
        """Do it; see `Task`."""
        from av2tsam_cli.parts import cut, hear

        check_input(self.source.path)
        plan = runner.plan(self.source, again=self.again)
        if plan is None:
            return self.skipped(runner)
        try:
            heard, parts = hear(plan, runner.load()), cut(plan, self.seconds)
        finally:
            runner.drop(plan)
        tasks = [
            PartTask(self.source, part=part, count=len(parts), heard=_around(heard, part),
                     folder=self.folder)
            for part in parts
        ]  # fmt: skip
        return Outcome("done", value=tuple(tasks))


def _around(heard: "Heard", part: "Part") -> "Heard":
    """Return what is heard in a part and around it."""
    windows = tuple(
        window
        for window in heard.windows
        if window.end_s > part.decode_s and window.start_s < part.stop_s + HEARD_AFTER_S
    )
    return replace(heard, windows=windows)


@dataclass(frozen=True)
class PartTask(Task):
    """A part of a video to segment. The value of its outcome is a `PartResult`."""

    part: "Part" = field(kw_only=True)
    """The part."""
    count: int = field(kw_only=True)
    """Number of parts of the video."""
    heard: "Heard" = field(kw_only=True, repr=False)
    """What is heard in the part."""
    folder: Path = field(kw_only=True)
    """Where the parts are written."""

    def do(self, runner: JobRunner) -> Outcome:
        """Do it; see `Task`."""
        from av2tsam_cli.parts import segment_part

        plan = runner.keep(self.source)
        if plan is None:  # the video was joined, but the worker was lost before it could say so
            return self.skipped(runner)
        folder = self.folder / f"{self.part.number}"
        result = segment_part(plan, runner.load(), self.heard, self.part, folder)
        return Outcome("done", value=result)

    def join(self, results: "Mapping[int, PartResult]") -> "JoinTask":
        """Return the task to join all parts, given their results by their numbers."""
        return JoinTask(
            self.source,
            heard=replace(self.heard, windows=()),
            results=tuple(results[number] for number in range(self.count)),
            folder=self.folder,
        )


@dataclass(frozen=True)
class JoinTask(Task):
    """Parts of a video to join."""

    heard: "Heard" = field(kw_only=True)
    """What is damaged of the sound."""
    results: "tuple[PartResult, ...]" = field(kw_only=True)
    """The results of all parts, in order."""
    folder: Path = field(kw_only=True)
    """Where the parts are."""

    HAS_LIMIT = False

    def do(self, runner: JobRunner) -> Outcome:
        """Do it; see `Task`."""
        from av2tsam_cli.parts import join_parts

        for result in self.results:
            if not result.written.folder.is_dir():
                raise Av2tsamError(
                    f"{self.source.path}: its parts are not on this computer; set `out` or "
                    "`staging` to a folder that all computers of the cluster have in common"
                )
        plan = runner.keep(self.source, again=self.again)
        if plan is None:
            return self.skipped(runner)
        join = partial(join_parts, plan, runner.load(), self.heard, self.results)
        joined = runner.finish(plan, join)
        shutil.rmtree(self.folder, ignore_errors=True)
        return Outcome("done", joined.outputs, joined)


def parts_folder(job: SegmentJob, source: Input) -> Path:
    """Return a new name of a folder for the parts of a video."""
    output = job.outputs(source)["out"]
    return temporary_path(output if url_of(output) is None else job.staging_folder / "parts")
