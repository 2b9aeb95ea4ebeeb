"""Fuzz every command that reads files other than media.

    python -m tests.fuzz.files --seed 1 --checkpoints 500 --others 500

Each case is a hostile file and a command that reads it. It must end within its time limit with a
documented exit code, in lines that `av2tsam` wrote, without control characters, without a file
outside its folder, and without growing memory. A crash or a hang ends only the process of the case
and is reported with its name; `--only NAME` runs that case again, and `--keep DIR` keeps its files.
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

from av2tsam_cli.__main__ import main

from .hostile import KINDS, Samples

CODES = (0, 1, 2, 3, 4)
"""The documented exit codes that a file may cause."""
LIMIT_S = 30.0
"""Seconds of CPU time after which a case counts as hanging; most take less than one."""
WAIT_S = 300.0
"""Seconds after which it does so without using the CPU."""
PEAK_BYTES = 1 << 30
"""Memory that a case may take for itself; the networks and data are tiny."""
GROWTH_BYTES = 200 << 20
"""Memory that all cases together may keep."""
LONGEST = 12_000
"""Characters of the longest line."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    name: str
    """Seed, kind and number, such as `1-others-17`."""
    maker: str = ""
    """What made the file."""
    command: str = ""
    """The command, without the path of its folder."""
    code: int | None = None
    """The exit code; None if the process ended or hung."""
    seconds: float = 0.0
    """CPU time in seconds."""
    peak: int = 0
    """Bytes of memory above those before the case."""
    kept: int = 0
    """Bytes of memory in use after the case."""
    findings: tuple[str, ...] = field(default=())
    """What is wrong."""


def run_case(name: str, samples: Samples, folder: Path) -> Result:
    """Make the files of a case in an empty folder and run its command in this process."""
    random = Random(name)  # noqa: S311 - not security-relevant
    maker = random.choice(KINDS[name.split("-")[1]])
    outside = folder / "outside"
    outside.mkdir()
    (outside / "keep.png").write_bytes(b"kept")
    command = maker(samples, folder, random)
    before, out, err = set(_names(folder)), io.StringIO(), io.StringIO()
    _reset_peak()
    start, memory = time.process_time(), _memory("VmRSS")
    home = {"AV2TSAM_HOME": str(folder / "home")}
    with mock.patch.dict(os.environ, home), redirect_stdout(out), redirect_stderr(err):
        code = main(command)
    seconds, peak = time.process_time() - start, _memory("VmHWM") - memory
    findings = [
        *_wrong_output(command, code, out.getvalue(), err.getvalue()),
        *_wrong_files(folder, before),
        *([f"{peak >> 20} MiB of memory"] if peak > PEAK_BYTES else []),
    ]
    return Result(
        name=name,
        maker=maker.__name__,
        command=" ".join(command).replace(f"{folder}/", ""),
        code=code,
        seconds=seconds,
        peak=peak,
        kept=_memory("VmRSS"),
        findings=tuple(findings),
    )


def _wrong_output(command: list[str], code: int, out: str, err: str) -> Iterator[str]:
    lines = [line for line in err.splitlines() if line]
    if code not in CODES:
        yield f"exit code {code}"
    wrong = [line for line in lines if "error: unexpected " in line or "Traceback" in line]
    if wrong := wrong or [line for line in lines if not _is_ours(command, line)]:
        yield f"{wrong[0][:500]!r}"
    has_error = any(line.startswith("av2tsam: error: ") for line in lines)
    if code and not has_error and command[:2] != ["models", "verify"]:
        yield f"exit code {code} without an error"
    shown = "" if command[:2] == ["models", "path"] else out  # this path is for other programs
    if CONTROL.search(err) or CONTROL.search(shown):
        yield "control characters"
    if max(map(len, lines), default=0) > LONGEST:
        yield f"a line of {max(map(len, lines))} characters"
    if "--json" in command:
        yield from _wrong_json(out)


def _is_ours(command: list[str], line: str) -> bool:
    """Return whether a line on stderr is a message of av2tsam, or the table of a training."""
    is_table = command[0] == "train" and re.fullmatch(r"[ \w./+%-]+", line)
    return line.startswith("av2tsam: ") or bool(is_table)


def _wrong_json(out: str) -> Iterator[str]:
    for line in out.splitlines():
        try:
            json.loads(line)
        except ValueError as error:
            yield f"not JSON: {error}"


def _wrong_files(folder: Path, before: set[str]) -> Iterator[str]:
    if _names(folder / "outside") != ["keep.png"]:
        yield "a file outside its folder"
    elif (folder / "outside" / "keep.png").read_bytes() != b"kept":
        yield "a changed file outside its folder"
    new = set(_names(folder)) - before
    if others := [
        each for each in new if each.partition(".")[0] not in {"out", "home", "o", "cache"}
    ]:
        yield f"new files: {others}"
    if parts := [path.name for path in folder.rglob(".av2tsam-*")]:
        yield f"unfinished files: {parts}"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _memory(name: str) -> int:
    """Return a value of this process in bytes: VmRSS for the memory in use, VmHWM for its peak."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return 0
    return int(re.search(rf"{name}:\s*(\d+)", status)[1]) << 10  # type: ignore[index]


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux
        return


def _work(connection: Connection, samples: Samples, keep: Path | None) -> None:
    """Run the cases whose names arrive, in a process of their own."""
    limit = 24 << 30  # of addresses, not of memory; what is far beyond is refused
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        name = connection.recv()
        with TemporaryDirectory(prefix="fuzz-") as temporary:
            folder = keep / name if keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                result = run_case(name, samples, folder)
            except Exception as error:  # noqa: BLE001 - the case could not be made
                result = Result(name, findings=(f"not run: {error!r}",))
        connection.send(result)


class Worker:
    """A process that runs cases, and is replaced if it crashes or hangs."""

    def __init__(self, samples: Samples, keep: Path | None) -> None:
        self.arguments = samples, keep
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, *self.arguments), daemon=True)
        self.process.start()
        other.close()

    def run(self, name: str) -> Result:
        """Run one case."""
        try:
            self.connection.send(name)
            end, limit = time.monotonic() + WAIT_S, self._cpu_s() + LIMIT_S
            while time.monotonic() < end and self._cpu_s() < limit:
                if self.connection.poll(0.5):
                    result: Result = self.connection.recv()
                    return result
            finding = "hung"
        except (EOFError, OSError):
            self.process.join(5)
            finding = f"ended the process ({self.process.exitcode})"
        self.stop()
        self._start()
        return Result(name, findings=(finding,))

    def _cpu_s(self) -> float:
        """Return the CPU time of the process in seconds; 0 if it is unknown."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def fuzz(names: list[str], samples: Samples, keep: Path | None = None) -> list[Result]:
    """Run cases, print each finding, and return all results."""
    worker, results = Worker(samples, keep), []
    for name in names:
        result = worker.run(name)
        results.append(result)
        if result.findings:
            print(f"{name}: {result.maker}: {'; '.join(result.findings)}", flush=True)
            print(f"    av2tsam {result.command[:300]!r}", flush=True)
    worker.stop()
    return results


def summary(results: list[Result]) -> str:
    """Return how many cases had each exit code, and the largest figures."""
    lines = []
    for kind in KINDS:
        chosen = [each for each in results if f"-{kind}-" in each.name]
        if not chosen:
            continue
        codes = Counter(str(each.code) for each in chosen)
        shown = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        slowest = max(chosen, key=lambda each: each.seconds)
        largest = max(chosen, key=lambda each: each.peak)
        kept = [each.kept for each in chosen if each.kept]
        growth = (kept[-1] - kept[len(kept) // 4]) >> 20
        lines += [
            f"{kind}: {len(chosen)} cases, {sum(bool(each.findings) for each in chosen)} findings",
            f"  exit codes: {shown}",
            f"  slowest: {slowest.seconds:.1f} s ({slowest.name}, {slowest.maker})",
            f"  most memory: {largest.peak >> 20} MiB ({largest.name}, {largest.maker})",
            f"  memory kept since the first quarter: {growth} MiB",
        ]
    return "\n".join(lines)


def case_names(seed: int, counts: dict[str, int]) -> list[str]:
    """Return the names of all cases."""
    return [f"{seed}-{kind}-{number}" for kind in KINDS for number in range(counts[kind])]


def command_line() -> int:
    """Run the fuzzer and return 1 if it found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=500, metavar="N")
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    options = parser.parse_args()
    names = options.only or case_names(
        options.seed, {kind: getattr(options, kind) for kind in KINDS}
    )
    with TemporaryDirectory(prefix="fuzz-samples-") as folder:
        results = fuzz(names, Samples.make(Path(folder)), options.keep)
    print(summary(results))
    return int(any(result.findings for result in results))


if __name__ == "__main__":
    sys.exit(command_line())
