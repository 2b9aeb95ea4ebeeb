"""Segment a long video on many workers.

One worker analyses the sound, all segment parts, and the last one joins them. The parts are in a
hidden folder beside the output, or in the staging folder if the output will be uploaded. All
machines of a cluster must share this folder.
"""

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
    from av2tsam_cli.parts import Part, PartResult, SoundAnalysis

SOUND_AFTER_S = 60.0
"""Seconds of sound after the end of a part that it needs, for frames computed beyond its end."""


@dataclass(frozen=True)
class CutTask(Task):
    """Analyse the sound of a video and cut it; the outcome's value is a tuple of `PartTask`."""

    seconds: int = 0
    """Length of the parts."""
    folder: Path = Path()
    """Folder for the parts."""

    HAS_LIMIT = False

    def run(self, runner: JobRunner) -> Outcome:
        """Run the task; see `Task`."""
        from av2tsam_cli.parts import analyse_sound, cut

        check_input(self.source)
        plan = runner.plan(self.source, retry=self.retry)
        if plan is None:
            return self.skipped(runner)
        try:
            sound, parts = analyse_sound(plan, runner.load()), cut(plan, self.seconds)
        finally:
            runner.drop(plan)
        tasks = [
            PartTask(self.source, part=part, count=len(parts), sound=_needed_by(sound, part),
                     folder=self.folder)
            for part in parts
        ]  # fmt: skip
        return Outcome("done", value=tuple(tasks))


def _needed_by(sound: "SoundAnalysis", part: "Part") -> "SoundAnalysis":
    """Return the part of an analysis that a part of the video needs."""
    windows = tuple(
        window
        for window in sound.windows
        if window.end_s > part.decode_s and window.start_s < part.stop_s + SOUND_AFTER_S
    )
    return replace(sound, windows=windows)


@dataclass(frozen=True)
class PartTask(Task):
    """Segment a part of a video; the outcome's value is a `PartResult`."""

    part: "Part" = field(kw_only=True)
    """The part."""
    count: int = field(kw_only=True)
    """The number of parts of the video."""
    sound: "SoundAnalysis" = field(kw_only=True, repr=False)
    """The sound in and around the part."""
    folder: Path = field(kw_only=True)
    """Folder for the parts."""

    def run(self, runner: JobRunner) -> Outcome:
        """Run the task; see `Task`."""
        from av2tsam_cli.parts import segment_part

        plan = runner.plan_and_keep(self.source, retry=self.retry)
        if plan is None:  # the parts were joined, but the worker was lost before it reported this
            return self.skipped(runner)
        folder = self.folder / f"{self.part.number}"
        result = segment_part(plan, runner.load(), self.sound, self.part, folder)
        return Outcome("done", value=result)

    def join(self, results: "Mapping[int, PartResult]") -> "JoinTask":
        """Return the task that joins all parts, given their results by number."""
        return JoinTask(
            self.source,
            sound=replace(self.sound, windows=()),
            results=tuple(results[number] for number in range(self.count)),
            folder=self.folder,
        )


@dataclass(frozen=True)
class JoinTask(Task):
    """Join the parts of a video."""

    sound: "SoundAnalysis" = field(kw_only=True)
    """The analysis without its windows, only for its damage."""
    results: "tuple[PartResult, ...]" = field(kw_only=True)
    """The results of all parts, in order."""
    folder: Path = field(kw_only=True)
    """The folder of the parts."""

    HAS_LIMIT = False

    def run(self, runner: JobRunner) -> Outcome:
        """Run the task; see `Task`."""
        from av2tsam_cli.parts import join_parts

        for result in self.results:
            if not result.written.folder.is_dir():
                raise Av2tsamError(
                    f"{self.source.path}: its parts are not on this computer; set `out` or "
                    "`staging` to a folder that all computers of the cluster share"
                )
        plan = runner.plan_and_keep(self.source, retry=self.retry)
        if plan is None:
            return self.skipped(runner)
        join = partial(join_parts, plan, runner.load(), self.sound, self.results)
        joined = runner.finish(plan, join)
        return Outcome("done", joined.outputs, joined)


def parts_folder(job: SegmentJob, source: Input) -> Path:
    """Return the path of a new folder for the parts of a video."""
    output = job.outputs(source)["out"]
    return temporary_path(output if url_of(output) is None else job.staging_folder / "parts")
