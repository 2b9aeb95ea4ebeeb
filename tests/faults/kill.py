"""Interrupts and kills commands at random moments, and checks what they leave behind.

    python -m tests.faults.kill --runs 100
    python -m tests.faults.kill --runs 30 --signals INT TERM HUP

In half of the runs, an earlier result is replaced. After each run, the old result or the complete
new one must be there, and all processes of the command must have ended within the time limit.
Unfinished files must be gone after SIGINT, SIGTERM and SIGHUP; after SIGKILL, the same command must
succeed when it runs again, and remove them. With `--steps`, each job is also killed before every
change that Python makes to its files. The exit code is 1 if anything was wrong.

Runs are forks of this process, which has imported everything but computed nothing, so they start
immediately; `--fresh` starts new processes instead. The moments are spread over the measured time
of a run, with a quarter of them near its end. If a command has several processes, SIGKILL is sent
to one of them at random, and the other signals to one or all of them.
"""

import argparse
import atexit
import gc
import hashlib
import importlib
import os
import pkgutil
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from random import Random

import av

import av2tsam_cli
from av2tsam_cli.__main__ import main as run_av2tsam

from .steps import die_at_step

SAMPLE = Path(__file__).parents[2] / "sample_media" / "duet.mp4"
LIMIT_S = 60.0
"""Seconds after which all processes of a command must have ended."""
BEGIN_S, SECONDS, RATE, SIZE = 4, 2, 5, (160, 90)
"""The part of the sample with sounds of a dog and a trumpet, and the size of its copy."""
PARTS = ".av2tsam-*"


@dataclass(frozen=True)
class Job:
    """A command that writes one result into a folder."""

    name: str
    """The name on the command line of this script: the kind of result."""
    words: str
    """The command, in which `OUT` is the folder, `CLIP` a video and `DATA` a data set."""
    target: str
    """Path of the result in the folder."""
    replaces: bool = True
    """Whether it replaces an earlier result."""


SEGMENT = "segment CLIP --model nano --device cpu --no-refine --overwrite --out OUT"
VIDEOS = ("mp4", "mov", "mkv", "webm")
PICTURES = ("masks", "overlays", "named-masks", "indexed-masks", "coco", "yolo", "npz")
JOBS = [
    *(Job(kind, f"{SEGMENT}/clip.{kind}", f"clip.{kind}") for kind in VIDEOS),
    *(Job(kind, f"{SEGMENT} --format {kind}", "clip") for kind in PICTURES),
    Job("listen", "listen CLIP --model nano --overwrite --csv --out OUT/clip.csv", "clip.csv"),
    Job(
        "evaluate",
        "evaluate --data DATA --subset ms3 --model nano --save-masks OUT/masks",
        "masks",
        replaces=False,
    ),
    Job("synth", "data synth OUT --subset ms3 --videos 2 --overwrite", "Multi-sources"),
]
INTERRUPTED = {0, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}
"""Exit codes after a signal; the last three if it arrives before Python can handle it."""
HUNG = 10_000
"""Stands for the exit code of processes that did not end within the time limit."""


@dataclass
class Tally:
    """The results of the runs of a job."""

    runs: int = 0
    during: int = 0
    """Runs that had not ended when the signal was sent."""
    old: int = 0
    """Of these, runs after which the old result was there, or none if there was none."""
    new: int = 0
    """Of these, runs after which the new result was there."""
    parts: int = 0
    """Of these, runs that left unfinished files."""
    removed: int = 0
    """Of these, runs whose unfinished files were removed by the next run."""
    slowest_s: float = 0.0
    """Longest time from the signal until all processes had ended."""
    wrong: list[str] = field(default_factory=list)
    """Descriptions of everything that was wrong."""


class Runner:
    """Runs one job again and again in a folder of its own."""

    def __init__(self, job: Job, work: Path, *, fresh: bool, dice: Random) -> None:
        self.job, self.fresh, self.dice = job, fresh, dice
        self.folder, self.log = work / job.name, work / f"{job.name}.log"
        self.folder.mkdir()
        self.target = self.folder / job.target
        places = {"OUT": self.folder, "CLIP": work / "clip.mp4", "DATA": work / "data"}
        self.words = job.words.split()
        for name, path in places.items():
            self.words = [word.replace(name, str(path)) for word in self.words]
        if not fresh:
            import_same(self)
        self.new = self.complete()
        self.seconds = self.measure()

    def complete(self) -> str:
        """Run the job to its end, and return the result."""
        if not self.job.replaces:
            remove(self.target)
        process = self.start()
        code, _ = wait(process)
        found = fingerprint(self.target)
        if code or found is None:
            raise RuntimeError(f"exit code {code}: {self.log.read_text()}")
        return found

    def measure(self) -> float:
        """Return the seconds that a run takes."""
        times = []
        for _ in range(3):
            began_s = time.monotonic()
            if self.complete() != self.new:
                raise RuntimeError("the result differs from run to run")
            times.append(time.monotonic() - began_s)
        return statistics.median(times)

    def interrupt(self, number: signal.Signals, tally: Tally) -> None:
        """Run the job, send it a signal at a random moment, and check what it leaves."""
        late = self.dice.random() < 0.25
        moment_s = self.seconds * self.dice.uniform(0.8 if late else 0.0, 1.1)
        old = self.prepare(replace=tally.runs % 2 == 0)
        process = self.start()
        time.sleep(moment_s)
        processes = session(process) or [process]
        # A process that has ended keeps its ID until it is waited for.
        during = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        if number != signal.SIGKILL and self.dice.random() < 0.5:
            victims = processes
        else:
            victims = [self.dice.choice(processes)] if number == signal.SIGKILL else [process]
        for each in victims if during else ():
            send(each, number)
        code, seconds = wait(process)
        tally.slowest_s = max(tally.slowest_s, seconds if during else 0.0)
        what = f"{number.name} to {victims} of {processes} after {moment_s:.3f} s, exit code {code}"
        self.check(what, old, tally, killed=number == signal.SIGKILL, during=during, code=code)

    def kill_at_steps(self, tally: Tally) -> None:
        """Kill the job before each change that Python makes to its files."""
        for step in count():
            old = self.prepare(replace=self.job.replaces)
            code, _ = wait(self.start(step))
            what = f"SIGKILL before change {step}, exit code {code}"
            self.check(what, old, tally, killed=True, during=code != 0, code=code)
            if code == 0:
                return

    def prepare(self, *, replace: bool) -> str | None:
        """Create or remove the old result, and return its hash."""
        remove(self.target)
        if replace and self.job.replaces:
            if self.target.suffix:
                self.target.write_text("old")
            else:
                self.target.mkdir()
                for name in ("000000.png", "000099.png"):
                    (self.target / name).write_text("old")
        return fingerprint(self.target)

    def check(
        self, what: str, old: str | None, tally: Tally, *, killed: bool, during: bool, code: int
    ) -> None:
        """Check what a run left; if there are unfinished files, check the next run too."""
        tally.runs += 1
        tally.during += during
        found, parts = fingerprint(self.target), list(self.folder.glob(PARTS))
        tally.old += during and found == old
        tally.new += during and found == self.new
        tally.parts += bool(parts)
        if found not in ({old, self.new} if during else {self.new}):
            tally.wrong.append(f"{what}: neither the old nor the new result: {found}")
        if code == HUNG:
            tally.wrong.append(f"{what}: still running after {LIMIT_S:.0f} s")
        if not killed and (code not in INTERRUPTED or parts):
            tally.wrong.append(f"{what}: left {parts}: {self.log.read_text()}")
        if parts:
            self.check_next(what, tally)

    def check_next(self, what: str, tally: Tally) -> None:
        """Check that the next run succeeds and leaves only its result."""
        try:
            same = self.complete() == self.new
        except RuntimeError as error:
            tally.wrong.append(f"{what}: the next run failed: {error}")
            return
        names = [path.name for path in self.folder.iterdir()]
        tally.removed += same and names == [self.job.target]
        if not same or names != [self.job.target]:
            tally.wrong.append(f"{what}: the next run left {names}")

    def start(self, step: int | None = None) -> int:
        """Start the job in a new session, to be killed at a step; return the process ID."""
        if self.fresh and step is None:
            return new_process(self.words, self.log)
        return fork(lambda: self.run(step), self.log)

    def run(self, step: int | None = None) -> int:
        """Run the job in this process, to be killed at a step; return the exit code."""
        if step is not None:
            die_at_step(step, self.folder)
        sys.argv = ["av2tsam", *self.words]
        return run_av2tsam()


def fork(function: Callable[[], int], log: Path) -> int:
    """Run a function in a fork of this process that exits like Python; return its ID."""
    sys.stdout.flush()
    # A signal that arrives before the `try` would unwind the code of the parent.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if process := os.fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return process
    code = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(getattr(signal, name), default)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        code = function()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - never return into the code of the parent
        traceback.print_exc()
    finally:
        # What Python does on exit; sys.exit would unwind the code of the parent.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def new_process(words: list[str], log: Path) -> int:
    """Start the command line in a new process and session; return the process ID."""
    output = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    command = [sys.executable, "-m", "av2tsam_cli", *words]
    return os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=[output, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )


def wait(process: int) -> tuple[int, float]:
    """Wait for all processes of a session; return the leader's exit code and the seconds."""
    began_s, code = time.monotonic(), None
    while time.monotonic() - began_s < LIMIT_S:
        if code is None:
            ended, status = os.waitpid(process, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
        if code is not None and not session(process):
            return code, time.monotonic() - began_s
        time.sleep(0.002)
    for each in session(process):
        send(each, signal.SIGKILL)
    if code is None:
        os.waitpid(process, 0)
    return HUNG, LIMIT_S


def session(leader: int) -> list[int]:
    """Return the running processes of a session, oldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == leader and state not in "ZX":
            found.append((int(fields[18]), int(entry.name)))
    return [number for _, number in sorted(found)]


def send(process: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still running."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def fingerprint(path: Path) -> str | None:
    """Return a hash of a result, the same for equal results; None if there is no result.

    For a video, it covers the sound and the number and times of pictures: Matroska files contain
    random numbers, and x264 encodes small pictures slightly differently from run to run (its
    `mbtree` reads uninitialised memory).
    """
    if not os.path.lexists(path):
        return None
    found = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            found.update(str(file.relative_to(path)).encode())
            found.update(file.read_bytes() if file.is_file() else b"")
    elif path.suffix == ".csv" or path.read_bytes() == b"old":
        found.update(path.read_bytes())
    else:
        try:
            with av.open(str(path)) as container:
                for packet in container.demux():
                    times = packet.stream_index, packet.pts, packet.dts, packet.duration
                    found.update(repr(times).encode())
                    if isinstance(packet.stream, av.VideoStream):
                        found.update(repr([frame.pts for frame in packet.decode()]).encode())
                    else:
                        found.update(bytes(packet))
        except av.FFmpegError:
            return "unreadable"
    return found.hexdigest()


def remove(path: Path) -> None:
    """Remove a result, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_inputs(work: Path) -> None:
    """Write the clip and the data set."""

    def write() -> int:
        from av2tsam_cli.synth.dataset import write_dataset

        with av.open(str(SAMPLE)) as source, av.open(str(work / "clip.mp4"), "w") as clip:
            video = clip.add_stream("libx264", rate=RATE)
            video.width, video.height = SIZE
            video.pix_fmt = "yuv420p"
            sound = clip.add_stream_from_template(source.streams.audio[0])
            for frame in source.decode(video=0):
                position = ((frame.time or 0.0) - BEGIN_S) * RATE
                index = round(position)
                if abs(position - index) < 0.01 and 0 <= index < SECONDS * RATE:
                    small = frame.reformat(*SIZE)
                    small.pts, small.time_base = index, Fraction(1, RATE)
                    clip.mux(video.encode(small))
            clip.mux(video.encode(None))
            source.seek(0)
            for packet in source.demux(audio=0):
                if packet.pts is None or packet.time_base is None:
                    continue
                time_s = packet.pts * packet.time_base - BEGIN_S
                if 0 <= time_s < SECONDS:
                    packet.pts = packet.dts = int(time_s / packet.time_base)
                    packet.stream = sound
                    clip.mux(packet)
        sizes = (0, 0, 1)
        write_dataset(work / "data", subset="ms3", videos=1, seed=5, split_sizes=sizes, workers=1)
        return 0

    log = work / "inputs.log"
    code, _ = wait(fork(write, log))
    if code:
        raise SystemExit(log.read_text())


def import_everything() -> None:
    """Import all modules of the package, so that forks of this process start at once."""
    for module in pkgutil.walk_packages(av2tsam_cli.__path__, "av2tsam_cli."):
        importlib.import_module(module.name)
    gc.freeze()


def import_same(runner: "Runner") -> None:
    """Import the other modules that a run of a job imports, such as parts of PyTorch."""
    names = runner.log.with_suffix(".modules")

    def run() -> int:
        before = set(sys.modules)
        code = runner.run()
        names.write_text("\n".join(set(sys.modules) - before))
        return code

    wait(fork(run, runner.log))
    for name in names.read_text().split():
        with suppress(ImportError):  # a module created by another one
            importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:  # a fork would not have them
        raise SystemExit(f"{threads} threads run after the imports")


def run_jobs(options: argparse.Namespace, work: Path) -> dict[str, Tally]:
    """Run all jobs in a folder, and return the tallies by job and kind of run."""
    make_inputs(work)
    tallies: dict[str, Tally] = {}
    for job in (job for job in JOBS if job.name in options.jobs):
        runner = Runner(job, work, fresh=options.fresh, dice=Random(f"{options.seed} {job.name}"))
        for name in options.signals:
            tally = tallies[f"{job.name}, SIG{name}"] = Tally()
            for run in range(options.runs):
                runner.interrupt(signal.Signals[f"SIG{name}"], tally)
                if run % 10 == 9:
                    print(f"{job.name}, SIG{name}: {tally}", file=sys.stderr)
        if options.steps:
            tally = tallies[f"{job.name}, each step"] = Tally()
            runner.kill_at_steps(tally)
    return tallies


HEADINGS = (
    "job", "runs", "killed during", "old untouched", "new complete", "parts left", "then removed",
    "slowest end", "wrong",
)  # fmt: skip


def print_table(tallies: dict[str, Tally]) -> None:
    """Print the tallies as a Markdown table, and what was wrong."""
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    for name, each in tallies.items():
        numbers = (each.runs, each.during, each.old, each.new, each.parts, each.removed)
        cells = " | ".join(map(str, numbers))
        print(f"| {name} | {cells} | {each.slowest_s:.1f} s | {len(each.wrong)} |")
    for name, each in tallies.items():
        for line in each.wrong:
            print(f"{name}: {line}")


def main() -> int:
    """Run all jobs, and print the results."""
    description = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=description)
    add, jobs = parser.add_argument, [job.name for job in JOBS]
    add("--runs", type=int, default=100, help="runs per job and signal")
    add("--jobs", nargs="+", default=[*VIDEOS, *PICTURES], choices=jobs)
    add("--signals", nargs="+", default=["KILL"], choices=["KILL", "INT", "TERM", "HUP"])
    add("--steps", action="store_true", help="also kill before each change of files")
    add("--fresh", action="store_true", help="start new processes instead of forks")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # or OpenBLAS would start threads on import
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults.kill", *sys.argv[1:]])
    import_everything()
    # Not a TemporaryDirectory, which forks would remove when they end.
    work = Path(tempfile.mkdtemp(prefix="av2tsam-kill-"))
    try:
        tallies = run_jobs(options, work)
    finally:
        shutil.rmtree(work)
        gc.unfreeze()
    print_table(tallies)
    return any(tally.wrong for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
