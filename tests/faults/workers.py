"""Segments many clips with Ray workers that crash, hang or are killed, and checks the results.

    python -m tests.faults.workers --ok 92 --broken 5 --crash 2 --hang 1
    python -m tests.faults.workers --ok 60 --kills 10
    python -m tests.faults.workers --ok 20 --lose-node

Real signals are sent to the worker processes: SIGSEGV whenever one works on a clip named `crash`,
SIGSTOP for a clip named `hang`; and with `--kills`, SIGKILL at random moments, alternately to a
child process with the model and to its parent, a process of Ray. With `--lose-node`, Ray runs two
nodes, one of which goes down. The exit code is 1 if anything was wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SAMPLE = Path(__file__).parents[2] / "sample_media" / "duet.mp4"
PART = re.compile(r"\.av2tsam-\w+-\w+-(?P<process>\d+)-\w+\.part")
LOOK_EVERY_S = 0.003
"""Seconds between two checks of what the workers have started."""
DONE_BETWEEN = 4
"""Clips to finish between two kills, so that the interrupted one is probably among them."""
CODES = {"ok": 0, "broken": 3, "crash": 3, "hang": 1}
"""Kinds of clips and their exit codes."""
SIGNALS = {"crash": signal.SIGSEGV, "hang": signal.SIGSTOP}


@dataclass
class Report:
    """The results of a run."""

    code: int = 0
    """The exit code."""
    seconds: float = 0.0
    """The duration."""
    records: dict[str, list[int]] = field(default_factory=dict)
    """The exit codes reported for each clip."""
    errors: list[str] = field(default_factory=list)
    """Lines on stderr."""
    sent: int = 0
    """Number of signals sent."""
    wrong: list[str] = field(default_factory=list)
    """Descriptions of everything that was wrong."""


def run(
    work: Path,
    counts: dict[str, int],
    *,
    workers: int,
    kills: int = 0,
    timeout_s: float = 30.0,
    address: str = "local",
    meanwhile: Callable[[Path, threading.Event], None] | None = None,
) -> Report:
    """Segment clips on workers, send them signals, and compare the results with those without Ray.

    Args:
        work: An empty folder.
        counts: The number of clips of each kind.
        workers: The number of workers.
        kills: How many processes to kill.
        timeout_s: The time limit of a clip.
        address: The address of Ray.
        meanwhile: Called in a thread with the output folder, and an event that is set at the end.
    """
    clips, out, folder = work / "clips", work / "out", work / "folder"
    names = make_clips(clips, counts)
    folder.mkdir()
    for name in ("cv2.py", "numpy.py", "av.py"):  # workers must not import from the current folder
        (folder / name).write_text("raise SystemExit")
    expected = fingerprint(_plain(clips / "000-ok.mp4", work / "plain"))
    report, stop = Report(), threading.Event()
    command = [
        *_command(clips, out),
        *("--name-template", "{stem}/masks", "--json", "--progress", "none"),
        *("--ray", address, "--workers", str(workers), "--cpus-per-worker", "1"),
        *("--timeout-per-item", str(timeout_s)),
    ]
    began_s = time.monotonic()
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=folder) as process:
        threads = [threading.Thread(target=_sabotage, args=(out, report, stop))]
        if kills:
            arguments = process.pid, kills, out, report, stop
            threads += [threading.Thread(target=_kill, args=arguments)]
        if meanwhile is not None:
            threads += [threading.Thread(target=meanwhile, args=(out, stop))]
        for thread in threads:
            thread.start()
        lines, errors = process.communicate()
        stop.set()
        for thread in threads:
            thread.join()
    report.code, report.seconds = process.returncode, time.monotonic() - began_s
    report.errors = errors.splitlines()
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            report.wrong.append(f"{line!r} on stdout")
            continue
        report.records.setdefault(Path(record["input"]).name, []).append(record["exit_code"])
    _check(report, names, out, expected)
    return report


def make_clips(folder: Path, counts: dict[str, int]) -> dict[str, str]:
    """Write clips, in mixed order, and return the kind of each."""
    folder.mkdir()
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    ordered = [kinds[0], *Random(1).sample(kinds[1:], len(kinds) - 1)]
    names = {}
    for number, kind in enumerate(ordered):
        path = folder / f"{number:03}-{kind}.mp4"
        if kind == "broken":
            path.write_bytes(SAMPLE.read_bytes()[:5000])
        else:
            shutil.copyfile(SAMPLE, path)
        names[path.name] = kind
    return names


def fingerprint(folder: Path) -> str:
    """Return a hash of the masks in a folder; "" if there are none."""
    masks = sorted(folder.glob("*.png"))
    content = b"".join(path.name.encode() + path.read_bytes() for path in masks)
    return hashlib.sha256(content).hexdigest() if masks else ""


def _command(source: Path, out: Path) -> list[str]:
    options = [
        "--format",
        "masks",
        "--model",
        "nano",
        "--device",
        "cpu",
        "--start",
        "4",
        "--end",
        "5",
    ]
    return [
        sys.executable,
        "-P",
        "-m",
        "av2tsam_cli",
        "segment",
        str(source),
        "-o",
        str(out),
        *options,
    ]


def _plain(clip: Path, out: Path) -> Path:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*_command(clip, out), "--quiet"], check=True, env=environment)
    return out / clip.stem


def _sabotage(out: Path, report: Report, stop: threading.Event) -> None:
    """Send signals to the processes that work on certain clips."""
    done: set[str] = set()
    while not stop.wait(LOOK_EVERY_S):
        for kind, number in SIGNALS.items():
            for part in listed(out, f"*-{kind}/.av2tsam-*"):
                name = PART.fullmatch(part.name)
                if name and part.name not in done:
                    done.add(part.name)
                    with suppress(ProcessLookupError):
                        os.kill(int(name["process"]), number)
                        report.sent += 1


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern; nothing if a folder is removed while it is listed."""
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        return []


def _kill(command: int, kills: int, out: Path, report: Report, stop: threading.Event) -> None:
    """Kill processes of workers at random moments, but not three times at the same clip."""
    dice = Random(2)
    sent, results = 0, -DONE_BETWEEN
    while sent < kills and not stop.wait(dice.uniform(0.5, 2)):
        if len(listed(out, "*/masks")) < results + DONE_BETWEEN:
            continue
        children = [each for each in descendants(command) if "cluster.child" in each[1]]
        if not children:
            continue
        child, _, parent = dice.choice(children)
        with suppress(ProcessLookupError):
            os.kill(child if sent % 2 else parent, signal.SIGKILL)
            sent += 1
            results = len(listed(out, "*/masks"))
    report.sent += sent


def descendants(process: int) -> list[tuple[int, str, int]]:
    """Return the ID, command line and parent of all descendants of a process."""
    found: dict[int, tuple[str, int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[int(entry.name)] = words, parent
    below = {process}
    for _ in range(len(found)):
        more = {number for number, (_, parent) in found.items() if parent in below} - below
        if not more:
            break
        below |= more
    return [(number, *found[number]) for number in below if number in found]


def _check(report: Report, names: dict[str, str], out: Path, expected: str) -> None:
    wrong = report.wrong
    for name, kind in names.items():
        codes = report.records.get(name)
        if codes != [CODES[kind]]:
            wrong.append(f"{name}: reported with the exit codes {codes}")
        found = fingerprint(out / Path(name).stem / "masks")
        if found != (expected if kind == "ok" else ""):
            wrong.append(f"{name}: has {'other' if found else 'no'} masks")
    wrong += [f"{part}: left behind" for part in out.rglob(".av2tsam-*")]
    failures = {CODES[kind] for kind in names.values()} - {0}
    if report.code != (min(failures, default=0) if len(failures) < 2 else 1):
        wrong.append(f"the exit code of the command is {report.code}")


@contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[Path, threading.Event], None]]]:
    """Start two Ray nodes; yield the address, and a function that takes the second one down."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    # A folder and an address of its own: Ray 2.50 finds the node of the command by the address that
    # the last node wrote into the folder.
    folder = tempfile.mkdtemp(prefix="ray-")
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2", temp_dir=folder)

    def lose_node(out: Path, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            if len(list(out.glob("*/masks"))) >= 4:
                cluster.remove_node(node, allow_graceful=False)
                print("lost a node")
                return

    try:
        yield cluster.address, lose_node
    finally:
        cluster.shutdown()
        shutil.rmtree(folder)


def main() -> int:
    """Run with the arguments of the command line, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in CODES:
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--lose-node", action="store_true")
    options = parser.parse_args()
    counts = {kind: getattr(options, kind) for kind in CODES}
    with (
        tempfile.TemporaryDirectory(prefix="av2tsam-faults-") as work,
        two_nodes() if options.lose_node else nullcontext(("local", None)) as (address, meanwhile),
    ):
        report = run(
            Path(work),
            counts,
            workers=options.workers,
            kills=options.kills,
            timeout_s=options.timeout,
            address=address,
            meanwhile=meanwhile,
        )
    for line in report.errors:
        if "error" in line:
            print(line)
    print(f"{sum(counts.values())} clips, {report.sent} signals sent, {report.seconds:.0f} s")
    print("\n".join(report.wrong) or "all correct")
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
