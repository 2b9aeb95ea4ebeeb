"""Trains and evaluates on two machines, breaks one of them, and checks how the other reacts.

    python -m tests.faults.nodes
    python -m tests.faults.nodes --only killed cut

The machines are network namespaces with their own addresses, host names, process IDs and folder
`/mnt`, so they only share paths outside `/mnt`. Needs Linux, root and `ip` (iproute2). Prints one
line of JSON per case; the exit code is 1 if any case is wrong.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from av2tsam_cli.hub.checkpoint import save_network
from av2tsam_cli.model.av2tsam import build
from av2tsam_cli.synth.dataset import write_dataset
from tests.tiny import TINY_CHECKPOINT

MACHINES = (1, 2)
PORT = 29_500
LIMIT_S = 300.0
"""Time limit of a command."""
SETUP = """
hostname machine{n}
mount --bind {folder}/machine{n} /mnt
mount --bind {folder}/hosts /etc/hosts
exec "$@"
"""
SHORT_WAITS = """
import sys, time, platform
from datetime import timedelta
from av2tsam_cli.data import cache
from av2tsam_cli.inference import distributed
from av2tsam_cli.__main__ import main

distributed.TIMEOUT, distributed.CONTACT_S = timedelta(seconds=20), 2.0
if platform.node() == "machine2" and "--cache=/mnt/slow" in sys.argv:
    compute = cache._compute
    cache._compute = lambda *words: (time.sleep(3), compute(*words))
sys.exit(main())
"""


@dataclass(frozen=True)
class Ended:
    """The outputs of a command on both machines."""

    codes: list[int]
    """Exit codes of torchrun."""
    stdout: list[str]
    """The texts on stdout."""
    lines: list[list[str]]
    """The lines on stderr from av2tsam."""
    seconds: float
    """Seconds from the start, or from the fault, until both had ended."""

    @property
    def summary(self) -> dict[str, object]:
        return {"codes": self.codes, "seconds": round(self.seconds, 1), "lines": self.lines}


class Lab:
    """Two machines with the same data and model, on which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.model, self.other = (folder / n for n in ("data", "tiny", "other"))
        self.script = folder / "short_waits.py"
        self.script.write_text(SHORT_WAITS)
        write_dataset(self.data, subset="ms3", videos=12, seed=1, workers=1)
        for seed, path in enumerate((self.model, self.other)):
            torch.manual_seed(seed)
            save_network(build(TINY_CHECKPOINT).eval(), path)
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n10.99.0.1 machine1\n10.99.0.2 machine2\n"
        )
        for n in MACHINES:
            (folder / f"machine{n}").mkdir()

    def words(self, command: str, **options: object) -> list[str]:
        """Return the arguments of a command; True is for an option without a value."""
        values = {"data": self.data, "subset": "ms3", "model": self.model, "device": "cpu"}
        values |= {"precision": "fp32", "cache": "/mnt/cache", "json": True} | options
        flags = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
        return [
            command,
            *(flag if value is True else f"{flag}={value}" for flag, value in flags.items()),
        ]

    def alone(self, words: list[str]) -> str:
        """Run a command in one process without torchrun, and return its stdout."""
        words = [word.replace("=/mnt/", f"={self.folder}/") for word in words]
        return subprocess.run(
            [sys.executable, "-m", "av2tsam_cli", *words, "--quiet"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def start(
        self, *words: list[str], processes: int = 1, restarts: int = 0
    ) -> list["subprocess.Popen[str]"]:
        """Start torchrun on both machines, with the arguments of each, or the same for both."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        torchrun += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"machine1:{PORT}"]
        machines = []
        for n in MACHINES:
            machine = ["ip", "netns", "exec", f"av2tsam{n}"]
            machine += ["unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
            machine += ["bash", "-c", SETUP.format(n=n, folder=self.folder), "bash"]
            with (self.folder / f"stderr{n}").open("w") as stderr:
                command = [*machine, *torchrun, str(self.script), *words[min(n, len(words)) - 1]]
                machines.append(
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
                )
        return machines

    def end(self, machines: list["subprocess.Popen[str]"]) -> Ended:
        """Wait for both machines."""
        start_s = time.monotonic()
        stdout = [machine.communicate(timeout=LIMIT_S)[0] for machine in machines]
        texts = [(self.folder / f"stderr{n}").read_text() for n in MACHINES]
        lines = [[x for x in t.splitlines() if x.startswith("av2tsam: ")] for t in texts]
        codes = [machine.returncode for machine in machines]
        return Ended(codes, stdout, lines, time.monotonic() - start_s)

    def losses(self, out: str) -> list[float]:
        """Return the losses of a run, given its folder in the lab."""
        path = self.folder / out / "steps.csv"
        with path.open(newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    def wait_for_steps(self, out: str, count: int) -> None:
        path = self.folder / out / "steps.csv"
        deadline_s = time.monotonic() + LIMIT_S
        while not path.exists() or len(path.read_text().splitlines()) <= count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(path)
            time.sleep(0.1)


def kill_worker(n: int) -> None:
    """Kill the process that torchrun started on a machine."""
    found = subprocess.run(
        ["ip", "netns", "pids", f"av2tsam{n}"], check=True, stdout=subprocess.PIPE, text=True
    )
    for number in found.stdout.split():
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        if words[1:2] == [b"-u"]:  # how torchrun starts Python
            os.kill(int(number), signal.SIGKILL)


def close_to(ours: list[float], theirs: list[float]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return bool(pairs) and all(abs(a / b - 1) < 1e-3 for a, b in pairs)


def case_same(lab: Lab) -> tuple[bool, Ended]:
    """Two processes on each machine train like one; only data and model are shared."""
    words = lab.words("train", out="/mnt/same", epochs=2, batch_size=4)
    ended = lab.end(lab.start(words, processes=2))
    lab.alone(words)
    fine = ended.codes == [0, 0] and close_to(lab.losses("machine1/same"), lab.losses("same"))
    return fine and not (lab.folder / "machine2" / "same").exists(), ended


def case_evaluate(lab: Lab) -> tuple[bool, Ended]:
    """Two processes on each machine print the scores of a single process, once."""
    words = lab.words("evaluate", split="train")
    ended = lab.end(lab.start(words, processes=2))
    return ended.codes == [0, 0] and "".join(ended.stdout) == lab.alone(words), ended


def case_masks(lab: Lab) -> tuple[bool, Ended]:
    """Masks cannot be saved to a folder that is not shared."""
    words = lab.words("evaluate", split="train", save_masks="/mnt/masks")
    ended = lab.end(lab.start(words))
    return ended.codes == [1, 1] and all("not shared" in own[0] for own in ended.lines), ended


def case_missing(lab: Lab) -> tuple[bool, Ended]:
    """Missing data on one machine end both, with the machine's name."""
    ours = lab.words("train", out="/mnt/missing")
    ended = lab.end(lab.start(ours, [*ours, "--data=/nothing"]))
    named = "process 1 on machine2: /nothing: folder not found" in ended.lines[0][0]
    return ended.codes == [1, 1] and named, ended


def case_weights(lab: Lab) -> tuple[bool, Ended]:
    """Different weights on one machine end both."""
    ours = lab.words("train", out="/mnt/weights")
    ended = lab.end(lab.start(ours, [*ours, f"--model={lab.other}"]))
    return ended.codes == [1, 1] and "--model: differs between" in ended.lines[0][-1], ended


def case_slow(lab: Lab) -> tuple[bool, Ended]:
    """A machine may take longer to fill its cache than the time limit for an answer."""
    words = lab.words("train", out="/mnt/slow-run", cache="/mnt/slow", max_steps=2)
    ended = lab.end(lab.start(words))
    return ended.codes == [0, 0] and ended.seconds > 25, ended


def case_killed(lab: Lab) -> tuple[bool, Ended]:
    """A process is killed: torchrun restarts all, and the training continues."""
    words = lab.words("train", out="/mnt/killed", epochs=20, batch_size=2, resume=True)
    machines = lab.start(words, restarts=2)
    lab.wait_for_steps("machine1/killed", 10)
    kill_worker(2)
    ended = lab.end(machines)
    lab.alone([word for word in words if word != "--resume"])
    continued = any("continuing after step" in line for line in ended.lines[0])
    losses = lab.losses("machine1/killed"), lab.losses("killed")
    return ended.codes == [0, 0] and continued and close_to(*losses), ended


def case_cut(lab: Lab) -> tuple[bool, Ended]:
    """The network is cut: the processes fail after the time limit, and the state is saved."""
    words = lab.words("train", out="/mnt/cut", epochs=1000, batch_size=2)
    machines = lab.start(words)
    lab.wait_for_steps("machine1/cut", 10)
    subprocess.run(["ip", "-n", "av2tsam2", "link", "set", "v2", "down"], check=True)
    try:
        machines[0].wait(timeout=LIMIT_S)
    finally:
        connect()  # or torchrun on the other machine would keep trying for minutes
    ended = lab.end(machines)
    said = "lost the connection to another process" in ended.lines[0][-1]
    return ended.codes == [1, 1] and said and "--resume" in ended.lines[0][-1], ended


CASES = {
    name.removeprefix("case_"): case
    for name, case in list(globals().items())
    if name.startswith("case_")
}


def connect() -> None:
    """Give both machines their addresses."""
    for n in MACHINES:
        address = ["ip", "-n", f"av2tsam{n}", "addr", "replace", f"10.99.0.{n}/24", "dev", f"v{n}"]
        subprocess.run(address, check=True)
        subprocess.run(["ip", "-n", f"av2tsam{n}", "link", "set", f"v{n}", "up"], check=True)


@contextmanager
def network() -> Iterator[None]:
    """Create two network namespaces that are only connected to each other."""
    for n in MACHINES:
        subprocess.run(["ip", "netns", "add", f"av2tsam{n}"], check=True)
    try:
        for n in MACHINES:
            subprocess.run(["ip", "-n", f"av2tsam{n}", "link", "set", "lo", "up"], check=True)
        pair = ["v1", "netns", "av2tsam1", "type", "veth", "peer", "name", "v2"]
        subprocess.run(["ip", "link", "add", *pair, "netns", "av2tsam2"], check=True)
        connect()
        yield
    finally:
        for n in MACHINES:
            subprocess.run(["ip", "netns", "delete", f"av2tsam{n}"], check=True)


def main() -> int:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    with tempfile.TemporaryDirectory() as folder, network():
        lab = Lab(Path(folder))
        for name in args.only:
            fine, ended = CASES[name](lab)
            results.append(fine)
            print(json.dumps({"case": name, "fine": fine} | ended.summary), flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
