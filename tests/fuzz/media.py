"""Fuzz `av2tsam segment` and `av2tsam listen` with damaged media files.

    python -m tests.fuzz.media --seed 1 --count 2000

Each file is a small valid one with a few mutations, and is processed by a process of its own. A
finding is a crash, an unexpected error, an undocumented exit code, too much time or memory, or an
output that is missing or left unfinished. Prints each as a line of JSON, then a line with totals,
and exits with 1 if there are any. `--only NUMBER` repeats one file; `--keep FOLDER` keeps the files
that have findings.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .clips import Clip, clips
from .forked import Outcome, run_forked
from .mutate import mutate

CPU_S = 20
"""Seconds of CPU time that a file may take; all have at most six small frames to begin with."""
MEMORY_BYTES = 1 << 30
"""Memory that a file may take; see `MAX_PIXELS` for the largest pictures that are accepted."""
DOCUMENTED = frozenset({0, 2, 3})
"""Exit codes for a readable file, options that do not fit it, and an unreadable one."""
TARGETS = (
    *(["-o", "out.mp4"], ["-o", "out.mkv"], ["-o", "out.mov"], ["-o", "out.webm"]),
    *(["-o", "out", "-f", "masks"], ["-o", "out", "-f", "overlays"]),
)
SECTIONS = ([], [], [], ["--start", "0.2"], ["--end", "0.3"], ["--start", "0.3", "--end", "0.4"])


@dataclass(frozen=True)
class Attempt:
    """One damaged file and what is done with it."""

    number: int
    """Its number in the series of its seed."""
    clip: Clip
    """The valid file."""
    data: bytes
    """The content of the damaged one."""
    mutations: str
    """What was done to it."""
    words: tuple[str, ...]
    """The command and its options."""


def make_attempt(seed: int, number: int, originals: list[tuple[Clip, bytes]]) -> Attempt:
    """Return the attempt with a number in the series of a seed."""
    random = Random(f"{seed}-{number}")  # noqa: S311 - reproducible on purpose
    clip, data = originals[number % len(originals)]
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
        left = [path for path in Path().iterdir() if path != source]
        os.chdir("/")
    return outcome, outcome.fault or _check(outcome, command, left)


def _check(outcome: Outcome, command: str, left: list[Path]) -> str | None:
    """Return what is wrong with a command that ended by itself; None if nothing is."""
    if outcome.exit_code not in DOCUMENTED:
        return f"exit code {outcome.exit_code}"
    if outcome.peak_bytes > MEMORY_BYTES:
        return "memory"
    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    if [each.get("exit_code", 0) for each in records] != [outcome.exit_code]:
        return "not one record with the exit code"
    written = command == "segment" and outcome.exit_code == 0
    if [path.name for path in left] != (
        [Path(records[0]["outputs"][0]).parts[0]] if written else []
    ):
        return "unfinished or missing output"
    return None


def report(attempt: Attempt, outcome: Outcome, problem: str) -> dict[str, Any]:
    """Return the line of JSON for a finding."""
    return {
        "number": attempt.number,
        "problem": problem,
        "clip": attempt.clip.name,
        "mutations": attempt.mutations,
        "command": " ".join(attempt.words),
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr[-2000:],
        "memory_mib": outcome.peak_bytes >> 20,
        "cpu_s": round(outcome.cpu_s, 1),
    }


def originals() -> list[tuple[Clip, bytes]]:
    """Return the valid files."""
    with tempfile.TemporaryDirectory() as folder:
        return [(clip, clip.write(Path(folder)).read_bytes()) for clip in clips()]


def make_model(folder: Path) -> Path:
    """Write a tiny network with random weights, and import everything that commands need."""
    import torch

    import av2tsam_cli.pipeline
    import av2tsam_cli.words.listen  # noqa: F401 - imported before forking
    from av2tsam_cli.hub.checkpoint import save_network
    from av2tsam_cli.model.av2tsam import build

    from ..tiny import TINY_CHECKPOINT

    torch.set_num_threads(1)  # threads do not survive forking
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    save_network(build(TINY_CHECKPOINT).eval(), path)
    return path


def attempts(seed: int, numbers: range) -> Iterator[Attempt]:
    """Yield the attempts with the given numbers."""
    valid = originals()
    return (make_attempt(seed, number, valid) for number in numbers)


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
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
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
