"""Fuzz `av2tsam segment` and `av2tsam listen` with damaged media files.

    python -m tests.fuzz.media --seed 1 --count 2000

Each file is a small valid one with a few mutations, and is processed by a process of its own. A
finding is a crash, an unexpected error, an undocumented exit code, too much time or memory, or an
output that is missing or left unfinished. Prints each as a line of JSON, then a line with totals,
and exits with 1 if there are any. `--only NUMBER` repeats one file; `--keep FOLDER` keeps the files
that have findings.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from av2tsam_cli.__main__ import main as command_line

from .clips import Clip, clips
from .declared import Declared, declared
from .forked import Outcome, run_forked
from .mutate import mutate

CPU_S = 20
"""Seconds of CPU time that a file may take; all have at most six small frames to begin with."""
MEMORY_BYTES = 1 << 30
"""Peak memory of a process, of which torch takes 0.4 GiB; small files can have large pictures."""
DECLARED_BYTES = 640 << 20
"""Peak memory of a process that rejects what a header declares."""
DOCUMENTED = frozenset({0, 2, 3})
"""Exit codes for a readable file, options that do not fit it, and an unreadable one."""
TARGETS = (
    *(["-o", "out.mp4"], ["-o", "out.mkv"], ["-o", "out.mov"], ["-o", "out.webm"]),
    *(["-o", "out", "-f", "masks"], ["-o", "out", "-f", "overlays"]),
)
SECTIONS: tuple[list[str], ...] = (
    [],
    [],
    [],
    ["--start", "0.2"],
    ["--end", "0.3"],
    ["--start", "0.3", "--end", "0.4"],
)


@dataclass(frozen=True)
class Attempt:
    """One damaged file and what is done with it."""

    number: int
    """Its number in the series of its seed."""
    clip: Clip
    """The valid file."""
    data: bytes
    """The content of the damaged one."""
    changes: str
    """What was done to it."""
    words: tuple[str, ...]
    """The command and its options."""
    exit_codes: frozenset[int] = DOCUMENTED
    """How it may end."""
    most_bytes: int = MEMORY_BYTES
    """Peak memory that it may take."""


def attempts(seed: int, numbers: range) -> Iterator[Attempt]:
    """Yield the attempts with the given numbers in the series of a seed.

    The first ones declare too much in their headers, and are the same for every seed.
    """
    with tempfile.TemporaryDirectory() as folder:
        valid = {clip: clip.write(Path(folder)).read_bytes() for clip in clips()}
    named = {clip.name: clip for clip in valid}
    fixed = declared({clip.name: data for clip, data in valid.items()})
    originals = list(valid.items())
    for number in numbers:
        if number < len(fixed):
            yield _declared(number, named[fixed[number].clip], fixed[number])
        else:
            yield _mutated(seed, number, *originals[number % len(originals)])


def _declared(number: int, clip: Clip, file: Declared) -> Attempt:
    words = ("listen",) if clip.video is None else ("segment", "-o", "out.mkv")
    codes = frozenset({0, 3} if file.readable else {3})
    return Attempt(number, clip, file.data, file.what, words, codes, DECLARED_BYTES)


def _mutated(seed: int, number: int, clip: Clip, data: bytes) -> Attempt:
    random = Random(f"{seed}-{number}")  # noqa: S311 - reproducible on purpose
    damaged, mutations = mutate(data, random, marks=clip.marks)
    timing = random.choice(([], ["--timing", "fine"]))
    if clip.video is None or (clip.sound is not None and random.random() < 0.1):
        words = ["listen", *timing]
    else:
        words = ["segment", *random.choice(TARGETS), *random.choice(SECTIONS), *timing]
    return Attempt(number, clip, damaged, mutations, tuple(words))


def run(attempt: Attempt, model: Path) -> tuple[Outcome, str | None]:
    """Process a damaged file in an empty folder; return how it ended, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        source = Path(f"damaged{Path(attempt.clip.name).suffix}")
        source.write_bytes(attempt.data)
        command, *options = attempt.words
        chosen = str(model) if command == "segment" else "nano"  # the tiny one has no words
        argv = [command, str(source), *options, "--model", chosen, "--json"]
        outcome = run_forked(argv, cpu_s=CPU_S)
        left = [path.name for path in Path().iterdir() if path != source]
        os.chdir("/")
    return outcome, outcome.fault or _check(attempt, outcome, left)


def _check(attempt: Attempt, outcome: Outcome, left: list[str]) -> str | None:
    """Return what is wrong with a command that ended by itself; None if nothing is."""
    if outcome.exit_code not in attempt.exit_codes:
        return f"exit code {outcome.exit_code}"
    if outcome.peak_bytes > attempt.most_bytes:
        return "memory"
    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    if [each.get("exit_code", 0) for each in records] != [outcome.exit_code]:
        return "not one record with the exit code"
    outputs = [Path(path).parts[0] for path in records[0].get("outputs", ())]
    return None if left == outputs else "unfinished or missing output"


def report(attempt: Attempt, outcome: Outcome, problem: str) -> dict[str, Any]:
    """Return the line of JSON for a finding."""
    return {
        "number": attempt.number,
        "problem": problem,
        "clip": attempt.clip.name,
        "changes": attempt.changes,
        "command": " ".join(attempt.words),
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr[-2000:],
        "memory_mib": outcome.peak_bytes >> 20,
        "cpu_s": round(outcome.cpu_s, 1),
    }


def make_model(folder: Path) -> Path:
    """Write a tiny network with random weights."""
    from av2tsam_cli.hub.checkpoint import save_network
    from av2tsam_cli.model.av2tsam import build

    from ..tiny import TINY_CHECKPOINT

    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    save_network(build(TINY_CHECKPOINT).eval(), path)
    return path


def warm_up(folder: Path, model: Path) -> None:
    """Run the commands here once, so that forked processes find everything imported."""
    clip = str(next(iter(clips())).write(folder))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for suffix in (".mkv", ".webm"):
            out = str(folder / f"out{suffix}")
            assert command_line(["segment", clip, "-o", out, "-m", str(model)]) == 0
        assert command_line(["listen", clip, "-m", "nano", "--json"]) == 0
    assert threading.active_count() == 1
    gc.freeze()  # so that a collection does not copy the memory that processes share


def main() -> int:
    """Run the fuzzer and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="number of files")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--keep", type=Path, help="folder for the files with findings")
    args = parser.parse_args()
    keep = args.keep and args.keep.absolute()
    codes: Counter[int] = Counter()
    most_mib, most_s, findings = 0, 0.0, 0
    torch.set_num_threads(1)  # threads do not survive forking
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        warm_up(Path(folder), model)
        for attempt in attempts(args.seed, range(args.first, args.first + args.count)):
            outcome, problem = run(attempt, model)
            codes[outcome.exit_code] += 1
            most_mib = max(most_mib, outcome.peak_bytes >> 20)
            most_s = max(most_s, outcome.cpu_s)
            if problem is not None:
                findings += 1
                print(json.dumps(report(attempt, outcome, problem)), flush=True)
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{args.seed}-{attempt.number}-{attempt.clip.name}").write_bytes(
                        attempt.data
                    )
    totals = {
        "seed": args.seed,
        "files": codes.total(),
        "findings": findings,
        "exit_codes": dict(sorted(codes.items())),
        "most_memory_mib": most_mib,
        "most_cpu_s": round(most_s, 1),
    }
    print(json.dumps(totals))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
