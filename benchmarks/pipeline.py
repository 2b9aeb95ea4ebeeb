"""Time of the whole `segment` pipeline, compared with its slower half: network or codec.

    python benchmarks/pipeline.py --size 640x360 --rate 25 --seconds 8

Generates a video and measures three runs in turn, each with the threads of the real pipeline: the
whole pipeline; everything but the network (decoding, resizing, masks, overlay, encoding), with its
results recorded beforehand; and the network alone, on the same batches.

The last line is JSON, with medians. `overhead` is the time of the whole divided by that of the
slower half. Halves that share cores cannot overlap completely: `cpu_bound_s`, the CPU seconds of
both divided by the number of cores, is a lower limit for any schedule. `network_waits` is the
fraction of the time in which the network waits for input or for the next stage (on a GPU: in which
the GPU does not run the network).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from machine import facts, seconds
from networks import PRECISION_HELP, checkpoint, write_video
from torch import Tensor

from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.pipeline import segment_planned
from av2tsam_cli.plan import SegmentPlan, plan_video
from av2tsam_cli.process import tune_process
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.values import AudioWindow

Call = tuple[FrameInputs, Sequence[AudioWindow]]


def main() -> None:
    """Measure the whole and its halves and print the overhead on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument(
        "--size", default="640x360", help="width and height of the video, even numbers"
    )
    parser.add_argument("--rate", type=int, default=25, help="frames per second")
    parser.add_argument("--seconds", type=int, default=8, help="length of the video")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="auto", help=PRECISION_HELP)
    parser.add_argument("--batch", type=int, help="default: as segment")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, help="folder in which to keep random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    width, height = map(int, args.size.split("x"))
    with checkpoint(args.preset, args.weights) as file:
        model = load_model(file, device=args.device, precision=args.precision)
    with TemporaryDirectory() as folder:
        video, out = Path(folder) / "video.mp4", Path(folder) / "overlay.mp4"
        write_video(video, args.seconds, size=(width, height), rate=args.rate)
        # The network processes every frame, including silent and repeated ones.
        options = SegmentOptions(
            batch_size=args.batch, silence_dbfs=None, reuse=None, overwrite=True
        )
        plan = plan_video(video, out, options)
        result = compare(plan, model, args.runs)
    settings = {"preset": args.preset, "precision": model.precision, "size": args.size}
    settings |= {"rate": args.rate, "seconds": args.seconds, "runs": args.runs}
    settings |= {"batch": args.batch or model.batch_size, "network_threads": model.cpu_threads}
    print(json.dumps(result | settings | facts(model.device)))


def compare(plan: SegmentPlan, model: LoadedModel, runs: int) -> dict[str, object]:
    """Time the whole and its halves in turn."""
    calls, results, frames = record(plan, model)
    whole, codec, network, waits, cpu = [], [], [], [], []
    for _ in range(runs):
        clocked = Timed(model)
        whole.append(timed(partial(segment_planned, plan, clocked), model)[0])
        waits.append(1 - clocked.busy_s() / whole[-1])
        replay = Replaying(model, results)
        codec_s, codec_cpu_s = timed(partial(segment_planned, plan, replay), model)
        network_s, network_cpu_s = timed(partial(run_network, model, calls), model)
        codec.append(codec_s)
        network.append(network_s)
        cpu.append(codec_cpu_s + network_cpu_s)
    wall_s, codec_s, network_s = map(statistics.median, (whole, codec, network))
    return {
        "overhead": round(wall_s / max(codec_s, network_s), 3),
        "network_waits": round(statistics.median(waits), 4),
        "frames": frames,
        "frames_per_s": round(frames / wall_s, 3),
        "wall_s": round(wall_s, 4),
        "network_s": round(network_s, 4),
        "codec_s": round(codec_s, 4),
        "cpu_bound_s": round(statistics.median(cpu) / (os.cpu_count() or 1), 4),
    }


def record(plan: SegmentPlan, model: LoadedModel) -> tuple[list[Call], list[list[Tensor]], int]:
    """Segment once, to warm up; return the network's inputs and results and the frame count."""
    recording = Recording(model)
    frames = segment_planned(plan, recording).frames
    return recording.calls, recording.results, frames


class Recording(Segmenter):
    """Keeps the network's inputs and results."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.calls: list[Call] = []
        self.results: list[list[Tensor]] = []

    def source_logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """Run the network."""
        self.calls.append((inputs, windows))
        self.results.append(super().source_logits(inputs, windows))
        return self.results[-1]


class Replaying(Segmenter):
    """Returns recorded results instead of running the network."""

    def __init__(self, model: LoadedModel, results: Sequence[list[Tensor]]) -> None:
        super().__init__(model)
        self.upcoming = cycle(results)

    def source_logits(self, *_: object) -> list[Tensor]:
        """Return the next recorded result."""
        return next(self.upcoming)


class Timed(Segmenter):
    """Measures how long the network runs."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.spans: list[Callable[[], float]] = []

    def source_logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """Run the network."""
        end = stopwatch(self.model.device)
        result = super().source_logits(inputs, windows)
        self.spans.append(end())
        return result

    def busy_s(self) -> float:
        """Return the seconds for which the network has run so far."""
        return sum(span() for span in self.spans)


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Start a stopwatch.

    On a GPU it uses the GPU's own clock, because calls return long before the work is done.

    Returns:
        A function that stops it, which returns a function that gives the seconds later.
    """
    if device.type != "cuda":
        began_s = time.perf_counter()

        def end() -> Callable[[], float]:
            took_s = time.perf_counter() - began_s
            return lambda: took_s

        return end
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()

    def end_on_device() -> Callable[[], float]:
        ended.record()
        return lambda: began.elapsed_time(ended) / 1000

    return end_on_device


def run_network(model: LoadedModel, calls: Sequence[Call]) -> None:
    """Run the network on prepared batches, with as many threads as in the pipeline."""
    segmenter = Segmenter(model)
    with torch_threads(model.cpu_threads):
        for inputs, windows in calls:
            segmenter.logits(inputs, windows)


def timed(step: Callable[[], object], model: LoadedModel) -> tuple[float, float]:
    """Return the wall time and the CPU time of all threads, in seconds."""
    began_s = time.process_time()
    wall_s = seconds(step, model.device)
    return wall_s, time.process_time() - began_s


if __name__ == "__main__":
    main()
