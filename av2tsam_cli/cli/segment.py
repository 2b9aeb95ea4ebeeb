"""`av2tsam segment`: videos in; what sounds, or a phrase names, highlighted or as masks out."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.console import Console, explain, print_json
from av2tsam_cli.cli.options import command, expand, new_app
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SegmentOptions

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.pipeline import SegmentPlan, SegmentResult

NANO_NOTE = (
    "using nano, the built-in demo model, which only recognises drawn scenes; for real videos try "
    "'av2tsam models pull {}' (its weights have not been tested here)"
)

app = new_app()


@command(
    app,
    examples=[
        ("av2tsam segment video.mp4 -o overlay.mp4", "highlight the sound source"),
        ("av2tsam segment video.mp4 -o masks -f masks", "write a mask PNG per frame"),
        ('av2tsam segment video.mp4 -o dog.mp4 --text "the dog"', "follow a phrase"),
    ],
)
def segment(
    inputs: Annotated[
        list[str],
        Option("videos, or patterns in quotes, such as '*.mp4'", metavar="INPUT", positional=True),
    ],
    *,
    out: Annotated[
        Path,
        Option(
            "a video (.mp4, .mov, .mkv, .webm), or a folder with --format",
            panel=Panel.OUTPUT,
            metavar="PATH",
            short="-o",
        ),
    ],
    options: SegmentOptions,
    skip_existing: Annotated[
        bool, Option("skip inputs whose output already exists", panel=Panel.OUTPUT)
    ] = False,
    model: ModelOptions,
    compile: Annotated[  # noqa: A002 - the option's name
        bool,
        Option(
            "compile the network first: takes a minute, and pays off for long videos only",
            panel=Panel.ADVANCED,
        ),
    ] = False,
    messages: Messages,
) -> int:
    """Highlight the sound source in videos, or write masks of it."""
    if options.overwrite and skip_existing:
        raise UsageError("`overwrite` and `skip_existing` exclude each other; pass one of them")
    request = Request(
        inputs=expand(inputs),
        out=out,
        options=options,
        model=model.model,
        device=model.device,
        precision=model.precision,
        compiled=compile,
        skip_existing=skip_existing,
    )
    _check_collisions(request)
    console = Console(quiet=messages.quiet, debug=messages.debug)
    with console.logged():
        return _Batch(request, console, json=messages.json).run()


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
    compiled: bool
    """Whether the network is compiled where that pays."""
    skip_existing: bool
    """Whether inputs whose output exists are left out."""

    def place(self, source: Path) -> Path:
        """The file or folder that one input will become."""
        from av2tsam_cli.outputs.writers import output_path
        from av2tsam_cli.pipeline import place_output

        kind, target = place_output(source, self.out, self.options.format)
        return output_path(target, kind, source)


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
            plans = [plan for source in self.request.inputs for plan in self._plans(source)]
            if plans and (model := self._load(plans)):
                for plan in plans:
                    self._segment(plan, model)
        except KeyboardInterrupt:
            for source in list(self.pending):
                self._failed(source, Interrupted("interrupted"))
            raise
        return self.codes.pop() if len(self.codes) == 1 else min(1, len(self.codes))

    def _plans(self, source: Path) -> "list[SegmentPlan]":
        """What is to be done with one input; nothing where it is skipped or cannot be done."""
        from av2tsam_cli.pipeline import plan_video

        place = self.request.place(source)
        if self.request.skip_existing and place.exists():
            self.console.note(f"{source}: skipped, {place} exists")
            self._done(source, {"outputs": [place], "skipped": True})
            return []
        plans: list[SegmentPlan] = []
        with self._reporting(source):
            plans.append(plan_video(source, self.request.out, self.request.options))
        return plans

    def _load(self, plans: "Sequence[SegmentPlan]") -> "LoadedModel | None":
        from av2tsam_cli.pipeline import load_for

        request = self.request
        frames = sum(plan.frames or 0 for plan in plans)
        try:
            model = load_for(
                request.options,
                request.model,
                device=request.device,
                precision=request.precision,
                compile_frames=frames if request.compiled else 0,
            )
        except Exception as error:  # noqa: BLE001 - every input is told about it
            self.console.error(error)
            for plan in plans:
                self._failed(plan.info.path, error)
            return None
        if request.model is None and model.name == "nano":
            wanted = "evf-sam2" if request.options.text is None else "evf-sam2-text"
            self.console.note(NANO_NOTE.format(wanted))
        return model

    def _segment(self, plan: "SegmentPlan", model: "LoadedModel") -> None:
        from av2tsam_cli.pipeline import segment_planned

        source = plan.info.path
        if plan.audio is None and plan.options.text is None:
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


def _summary(result: "SegmentResult") -> str:
    speed = result.frames / result.wall_s
    what = "a sounding object" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )
