"""What the whole of `segment` takes against its slower half, network or codec.

    python benchmarks/pipeline.py --size 640x360 --rate 25 --seconds 8

Writes a video of drawn scenes and measures, in turns and with the threads that the pipeline gives
to each: the whole; the codec alone, which is all of it (decoding, shrinking, masks, overlay,
encoding, on the same threads) but with the network's answers known beforehand; the network alone,
on the batches that it saw in the whole.

The last line is JSON, of medians: `overhead` is the whole over the slower of the two; where they
share cores they cannot fully overlap, and `cpu_bound_s`, the CPU seconds of both over the number of
cores, is what no schedule can beat. `network_waits` is the share of the whole in which the network
stage waits for input or for room (on a GPU: in which the GPU is not at it).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from machine import facts, seconds
from networks import PRECISION_HELP, checkpoint, write_video
from torch import Tensor

from av2tsam_cli.inference import segmenter as inference
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.pipeline import SegmentPlan, plan_video, segment_planned
from av2tsam_cli.process import tune_process
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.values import AudioWindow

Call = tuple[FrameInputs, Sequence[AudioWindow]]


def main() -> None:
    """Measure the whole and its halves and print the overhead last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--size", default="640x360", help="of the video, even numbers")
    parser.add_argument("--rate", type=int, default=25, help="frames per second")
    parser.add_argument("--seconds", type=int, default=8, help="of video")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="auto", help=PRECISION_HELP)
    parser.add_argument("--batch", type=int, help="by default what segment takes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, help="folder that keeps random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    width, height = map(int, args.size.split("x"))
    with checkpoint(args.preset, args.weights) as file:
        model = load_model(file, device=args.device, precision=args.precision)
    with TemporaryDirectory() as folder:
        video, out = Path(folder) / "video.mp4", Path(folder) / "overlay.mp4"
        write_video(video, args.seconds, size=(width, height), rate=args.rate)
        # Every frame goes through the network, however quiet or still.
        options = SegmentOptions(
            batch_size=args.batch, silence_dbfs=None, reuse=None, overwrite=True
        )
        plan = plan_video(video, out, options)
        result = compare(plan, model, args.runs)
    asked = {"preset": args.preset, "precision": model.precision, "size": args.size}
    asked |= {"rate": args.rate, "seconds": args.seconds, "runs": args.runs}
    asked |= {"batch": args.batch or model.batch_size, "network_threads": model.cpu_threads}
    print(json.dumps(result | asked | facts(model.device)))


def compare(plan: SegmentPlan, model: LoadedModel, runs: int) -> dict[str, object]:
    """Times of the whole and of its halves, which take turns."""
    calls, answers, frames = record(plan, model)
    whole, codec, network, waits, cpu = [], [], [], [], []
    for _ in range(runs):
        with timed_network(model) as busy_s:
            whole.append(timed(partial(segment_planned, plan, model), model)[0])
        waits.append(1 - busy_s() / whole[-1])
        with known_answers(answers):
            codec_s, codec_cpu_s = timed(partial(segment_planned, plan, model), model)
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


def record(plan: SegmentPlan, model: LoadedModel) -> tuple[list[Call], list[Tensor], int]:
    """Segment once, to warm up: what the network was given and answered, and how many frames."""
    calls: list[Call] = []
    answers: list[Tensor] = []

    class Recording(Segmenter):
        def logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> Tensor:
            calls.append((inputs, windows))
            answers.append(super().logits(inputs, windows))
            return answers[-1]

    with patch.object(inference, "Segmenter", Recording):
        return calls, answers, segment_planned(plan, model).frames


@contextmanager
def known_answers(answers: Sequence[Tensor]) -> Iterator[None]:
    """Let the pipeline's network answer at once."""
    upcoming = cycle(answers)

    class Knowing(Segmenter):
        def logits(self, *_: object) -> Tensor:
            return next(upcoming)

    with patch.object(inference, "Segmenter", Knowing):
        yield


@contextmanager
def timed_network(model: LoadedModel) -> Iterator[Callable[[], float]]:
    """Give a function that says how many seconds the pipeline's network has worked so far."""
    spans: list[Callable[[], float]] = []

    class Timed(Segmenter):
        def logits(self, inputs: FrameInputs, windows: Sequence[AudioWindow]) -> Tensor:
            end = stopwatch(model.device)
            result = super().logits(inputs, windows)
            spans.append(end())
            return result

    with patch.object(inference, "Segmenter", Timed):
        yield lambda: sum(span() for span in spans)


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Begin a span; call the result to end it, and what that gives, later, for its seconds.

    On a GPU the span is of its own clock: the calls return long before the work is done.
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
    """The network on batches prepared beforehand, with the threads that the pipeline gives it."""
    segmenter = Segmenter(model)
    with torch_threads(model.cpu_threads):
        for inputs, windows in calls:
            segmenter.logits(inputs, windows)


def timed(step: Callable[[], object], model: LoadedModel) -> tuple[float, float]:
    """Seconds of wall time and of all CPUs together."""
    began_s = time.process_time()
    wall_s = seconds(step, model.device)
    return wall_s, time.process_time() - began_s


if __name__ == "__main__":
    main()
