"""Speed of each part of the network, compared with the package that provides the same network.

    python benchmarks/peers.py --runs 5
    python benchmarks/peers.py --parts clip,clap --same-malloc --mapped

Both sides have full size, random weights and a batch of one. Ours is loaded from a checkpoint, as
users load it; the peer is built as its package builds it. Each side has its own process, and the
processes take turns (ours, theirs, ours, theirs, ...), so that changes in the machine's speed
affect both equally. BEiT-3's own package cannot be installed beside the others: its peer is our
plain re-implementation, `plain_beit3.py`.

One line per part; the last line is JSON. `ratio` is seconds of the peer / ours, from the medians of
the runs: above 1, ours is faster. `cpu_ratio` is the same in CPU time, which other programs on the
machine disturb less. Our process keeps freed memory as `av2tsam segment` does;
`--same-malloc` gives the peer the same malloc settings. Our loader copies the weights into memory;
`--mapped` adds a third side, ours with the weights left in the memory-mapped file.
"""

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from machine import facts
from networks import seeded
from peer_networks import PARTS, Side, serve

from av2tsam_cli.hub.checkpoint import save_network

Times = Mapping[str, Sequence[tuple[float, float]]]
"""Wall and CPU seconds of every run, by side."""


def main() -> None:
    """Compare the parts one after another and print all results last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--same-malloc", action="store_true", help="give the peer our settings")
    parser.add_argument("--mapped", action="store_true", help="also ours on memory-mapped weights")
    parser.add_argument("--small", action="store_true", help="small networks, to test this script")
    parser.add_argument("--weights", type=Path, help="folder in which to keep the random weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sides = ["ours", "theirs", *(["ours_mapped"] if args.mapped else [])]
    results = {}
    with nullcontext(args.weights) if args.weights else TemporaryDirectory() as folder:
        for name in args.parts.split(","):
            results[name] = compare(name, sides, args, Path(folder))
            print(json.dumps({"part": name} | results[name]), flush=True)
    options = {"precision": args.precision, "runs": args.runs, "same_malloc": args.same_malloc}
    print(json.dumps({"parts": results} | options | facts(torch.device("cpu"))))


def compare(
    name: str, sides: Sequence[str], args: argparse.Namespace, folder: Path
) -> dict[str, object]:
    """Let the sides of one part take turns and return their medians and ratios."""
    checkpoint = folder / f"{name}{'-small' if args.small else ''}.safetensors"
    if not checkpoint.exists():
        save_network(seeded(PARTS[name].config(small=args.small)), checkpoint)
    with ExitStack() as stack:
        connections, weights = {}, {}
        for side in sides:
            settings = Side(
                name=side,
                part=name,
                small=args.small,
                precision=args.precision,
                threads=args.threads,
                keeps_freed_memory=side != "theirs" or args.same_malloc,
            )
            connections[side] = stack.enter_context(process_of(settings, checkpoint))
            weights[side] = connections[side].recv()
        times = take_turns(connections, args.runs)
    return {"peer": PARTS[name].peer_name, "weights": weights, **summary(times)}


@contextmanager
def process_of(side: Side, checkpoint: Path) -> Generator[Connection, None, None]:
    """Run one side in a process of its own until the context ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, side, checkpoint), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


def take_turns(connections: Mapping[str, Connection], runs: int) -> Times:
    """Time `runs` runs of every side in turn."""
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in connections}
    for _ in range(runs):
        for side, connection in connections.items():
            connection.send("run")
            times[side].append(connection.recv())
    return times


def summary(times: Times) -> dict[str, float]:
    """Return median seconds of every side, and the peer's relative to ours."""
    wall_s = {side: statistics.median(wall for wall, _ in runs) for side, runs in times.items()}
    cpu_s = {side: statistics.median(cpu for _, cpu in runs) for side, runs in times.items()}
    result = {f"{side}_s": round(seconds, 5) for side, seconds in wall_s.items()}
    result["ratio"] = round(wall_s["theirs"] / wall_s["ours"], 3)
    result["cpu_ratio"] = round(cpu_s["theirs"] / cpu_s["ours"], 3)
    if "ours_mapped" in times:
        result["mapped_ratio"] = round(wall_s["ours_mapped"] / wall_s["ours"], 3)
        result["mapped_cpu_ratio"] = round(cpu_s["ours_mapped"] / cpu_s["ours"], 3)
    return result


if __name__ == "__main__":
    main()
