"""`av2tsam segment`: videos in, the sounding objects highlighted or as masks out."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.cli.console import Console, explain, print_json
from av2tsam_cli.cli.options import (
    Parser,
    add_expert_model_options,
    add_model_options,
    add_talk_options,
    decibels,
    expand,
    probability,
    rate,
    seconds,
)
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError

if TYPE_CHECKING:
    from av2tsam_cli.inference import LoadedModel
    from av2tsam_cli.pipeline import Plan, SegmentOptions, SegmentResult

DESCRIPTION = """\
Find what is making the sound in each video and write

  --out x.mp4 (.mov .mkv .webm)     the same video with the sounding objects highlighted
  --out DIR --format video          that for each input: DIR/<input name>.mp4
  --out DIR --format masks          DIR/<input name>/000000.png ...: one 0/255 mask per frame
  --out DIR --format overlays       DIR/<input name>/000000.png ...: one highlighted image per frame
"""
EPILOG = """\
Inputs of one name from several folders would overwrite each other: that is found before the work
and refused. Nothing is replaced without --overwrite, and nothing half-written is left behind.
Where several inputs fail for different reasons the exit code is 1.
"""


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse(argv)
    request = _request(arguments)
    console = Console(quiet=arguments.quiet, debug=arguments.debug)
    with console.logged():
        return _Batch(request, console, json=arguments.json).run()


NANO_NOTE = (
    "using nano, the small built-in model: it knows the drawn objects of its synthetic training "
    "scenes, and is for trying things out; see: av2tsam models info nano"
)


@dataclass(frozen=True)
class Request:
    """Everything that was asked for, checked as far as it can be without opening a file."""

    inputs: tuple[Path, ...]
    """The videos, each once."""
    out: Path
    """A video file, or a folder."""
    options: SegmentOptions
    """What to make of each."""
    model: str | None
    """Name or path; None for the best installed one."""
    device: str
    """`auto`, `cpu`, `cuda` or `mps`."""
    precision: str
    """`auto`, `fp32`, `bf16` or `fp16`."""
    skip_existing: bool
    """Whether inputs whose output exists are left out."""

    def place(self, source: Path) -> Path:
        """The file or folder that one input will become."""
        from av2tsam_cli.outputs.writers import output_path
        from av2tsam_cli.pipeline import place_output

        kind, target = place_output(source, self.out, self.options.format)
        return output_path(target, kind, source)


def _parser() -> Parser:
    parser = Parser("av2tsam segment", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a video, or a quoted pattern")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, type=Path, metavar="PATH", help="where it goes")
    output.add_argument(
        "--format",
        choices=("video", "masks", "overlays"),
        help="what to write (default: video where --out names one)",
    )
    existing = output.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave inputs out whose output exists"
    )
    _add_part_options(parser)
    add_model_options(parser)
    add_talk_options(parser)
    _add_expert_options(parser)
    return parser


def _add_part_options(parser: Parser) -> None:
    part = parser.add_argument_group("part of the video")
    part.add_argument(
        "--start",
        type=seconds,
        default=0.0,
        metavar="TIME",
        help="seconds or [HH:]MM:SS at which to begin (default: 0)",
    )
    part.add_argument(
        "--end",
        type=seconds,
        metavar="TIME",
        help="seconds or [HH:]MM:SS at which to end (default: the end of the video)",
    )
    part.add_argument(
        "--audio-stream",
        metavar="N|LANG",
        help="which sound: 0 is the first audio stream; or a language such as eng "
        "(default: the one that players take)",
    )
    part.add_argument(
        "--require-audio",
        action="store_true",
        help="fail with exit code 3 where there is no audio stream (default: all masks are empty)",
    )


def _add_expert_options(parser: Parser) -> None:
    expert = parser.add_argument_group("expert options")
    expert.add_argument(
        "--fps",
        type=rate,
        metavar="RATE",
        help="masks per second made by the network; in between, logits are interpolated linearly, "
        "and held where the second of sound ends (default: every frame)",
    )
    expert.add_argument(
        "--threshold",
        type=probability,
        default=0.5,
        metavar="P",
        help="probability from which a pixel belongs to the mask, 0 to 1 (default: 0.5)",
    )
    expert.add_argument(
        "--silence-dbfs",
        type=decibels,
        default=-60.0,
        metavar="LEVEL",
        help="seconds of sound below this RMS level, in dB relative to full scale, get an empty "
        "mask; off: none do (default: -60)",
    )
    add_expert_model_options(expert)


def _request(arguments: argparse.Namespace) -> Request:
    """Check what was asked for.

    Raises:
        UsageError: It does not fit together.
    """
    from av2tsam_cli.pipeline import SegmentOptions

    request = Request(
        inputs=expand(arguments.inputs),
        out=arguments.out,
        options=SegmentOptions(
            format=arguments.format,
            start_s=arguments.start,
            stop_s=arguments.end,
            fps=arguments.fps,
            threshold=arguments.threshold,
            silence_dbfs=arguments.silence_dbfs,
            audio_stream=arguments.audio_stream,
            require_audio=arguments.require_audio,
            batch_size=arguments.batch_size,
            overwrite=arguments.overwrite,
        ),
        model=arguments.model,
        device=arguments.device,
        precision=arguments.precision,
        skip_existing=arguments.skip_existing,
    )
    _check_collisions(request)
    return request


def _check_collisions(request: Request) -> None:
    """Find inputs that would overwrite each other's output.

    Raises:
        UsageError: There are such inputs.
    """
    owners: dict[str, Path] = {}
    for source in request.inputs:
        place = request.place(source)
        # Some file systems do not tell A from a: neither does this.
        other = owners.setdefault(str(place).casefold(), source)
        if other != source and place == request.out:
            raise UsageError(
                f"{place}: {len(request.inputs)} inputs do not fit into one video; name a folder "
                "with --out DIR --format video, masks or overlays"
            )
        if other != source:
            raise UsageError(
                f"{other} and {source} would both become {place}; give each a --out of its own"
            )


class _Batch:
    """The inputs of one call: one model, one report each, and one exit code for all."""

    def __init__(self, request: Request, console: Console, *, json: bool) -> None:
        self.request = request
        self.console = console
        self.json = json
        self.pending = list(request.inputs)
        self.codes: set[int] = set()

    def run(self) -> int:
        """Check every input, then load the model, then work; one that fails stops no other."""
        try:
            plans = [plan for source in self.request.inputs if (plan := self._plan(source))]
            if plans and (model := self._load(plans)):
                for plan in plans:
                    self._segment(plan, model)
        except KeyboardInterrupt:
            for source in list(self.pending):
                self._failed(source, Interrupted("interrupted"))
            raise
        return self.codes.pop() if len(self.codes) == 1 else min(1, len(self.codes))

    def _plan(self, source: Path) -> Plan | None:
        from av2tsam_cli.pipeline import plan_video

        place = self.request.place(source)
        if self.request.skip_existing and place.exists():
            self.console.note(f"{source}: skipped, {place} exists")
            self._done(source, {"outputs": [place], "skipped": True})
            return None
        plan = None
        with self._reporting(source):
            plan = plan_video(source, self.request.out, self.request.options)
        return plan

    def _load(self, plans: Sequence[Plan]) -> LoadedModel | None:
        from av2tsam_cli.inference import load_model

        request = self.request
        try:
            model = load_model(request.model, device=request.device, precision=request.precision)
        except Exception as error:  # noqa: BLE001 - every input is told about it
            self.console.error(error)
            for plan in plans:
                self._failed(plan.info.path, error)
            return None
        if request.model is None and model.name == "nano":
            self.console.note(NANO_NOTE)
        return model

    def _segment(self, plan: Plan, model: LoadedModel) -> None:
        from av2tsam_cli.pipeline import segment_planned

        source = plan.info.path
        if plan.audio is None:
            self.console.note(f"{source}: has no sound, so all masks are empty")
        with self._reporting(source):
            with self.console.progress(source.name, plan.frames) as progress:
                result = segment_planned(plan, model, progress=progress)
            self.console.note(_summary(result))
            self._done(source, asdict(result))

    @contextmanager
    def _reporting(self, source: Path) -> Generator[None, None, None]:
        """Report what goes wrong with one input, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the other inputs still run
            self.console.error(error)
            self._failed(source, error)

    def _failed(self, source: Path, error: Exception) -> None:
        code = error.exit_code if isinstance(error, Av2tsamError) else Av2tsamError.exit_code
        self.codes.add(code)
        self._done(source, {"error": explain(error), "exit_code": code})

    def _done(self, source: Path, record: Mapping[str, object]) -> None:
        self.pending.remove(source)
        if self.json:
            print_json({"input": source, **record})


def _summary(result: SegmentResult) -> str:
    speed = result.frames / result.wall_s
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with a sounding object"
    )
