"""Frames per second of the network alone, and its share of the machine's peak.

    python benchmarks/frames.py --preset evf-sam2 --precision fp32,bf16 --batch 1,4 --compile off,on

Runs every combination of the comma-separated lists on prepared frames and prints one JSON line for
each. `frames_per_s` covers the whole network except CLAP, which a video needs once per second;
`encoder_s_per_frame` covers the image encoder alone. `share_of_peak` is the number of the encoder's
operations, counted in the plain network, divided by the number that this machine performs in the
same time in a product of two large matrices: the fastest of several, in the same precision. The
last line has the fastest combination and the peaks. Run it on an idle machine. Resident memory is
the peak of the process so far; on a GPU, the peak of the combination.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from machine import MIB, facts, median_of, peak_flops, peak_rss_bytes
from networks import PRECISION_HELP, checkpoint, encoder_flops, scene

from av2tsam_cli.inference.device import choose_device, choose_precision
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter, compile_network
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.process import tune_process

Result = dict[str, object]


def main() -> None:
    """Measure every combination and print the fastest on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--preset", default="nano", help=f"comma-separated, from {', '.join(PRESETS)}"
    )
    parser.add_argument(
        "--precision", default="auto", help=f"comma-separated, from {PRECISION_HELP}"
    )
    parser.add_argument("--batch", default="1,4", help="frames per batch, comma-separated")
    parser.add_argument("--compile", default="off", help="off, on or off,on")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, help="folder in which to keep random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    device = choose_device(args.device)
    precisions = dict.fromkeys(choose_precision(p, device) for p in args.precision.split(","))
    peaks = {precision: peak_flops(device, precision) for precision in precisions}
    ways = list(product(precisions, args.compile.split(","), map(int, args.batch.split(","))))
    results = []
    for preset in args.preset.split(","):
        with checkpoint(preset, args.weights) as file:
            for result in measure_all(file, preset, ways, peaks, runs=args.runs, device=device):
                print(json.dumps(result), flush=True)
                results.append(result)
    fastest = max(results, key=lambda result: result["frames_per_s"])
    tera = {f"peak_tflops_{name}": round(peak / 1e12, 3) for name, peak in peaks.items()}
    print(json.dumps(fastest | tera | {"runs": args.runs} | facts(device)))


def measure_all(
    file: Path,
    preset: str,
    ways: Sequence[tuple[str, str, int]],
    peaks: Mapping[str, float],
    *,
    runs: int,
    device: torch.device,
) -> Iterator[Result]:
    """Yield the result of every combination for one network."""
    flops = encoder_flops(preset)
    for precision, compiled, batch in ways:
        packed = compiled == "off"
        model = load_model(file, device=device.type, precision=precision, packed=packed)
        if compiled == "on":
            model = compile_network(model, batch)
        settings = {"preset": preset, "precision": precision, "batch": batch, "compile": compiled}
        yield settings | measure(model, batch, runs, flops / peaks[precision])


def measure(model: LoadedModel, batch: int, runs: int, least_s: float) -> Result:
    """Time the network and its image encoder.

    Args:
        model: The network.
        batch: Frames per batch.
        runs: Number of runs; their median is reported.
        least_s: Seconds that the image encoder would take for a frame at the machine's peak.
    """
    segmenter, device = Segmenter(model), model.device
    frames, windows = scene(batch, segmenter.rate_hz)
    inputs = segmenter.prepare(frames)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    network_s = median_of(lambda: segmenter.logits(inputs, windows), runs, device) / batch
    encoder_s = median_of(lambda: encode(model, inputs), runs, device) / batch
    result: Result = {
        "frames_per_s": round(1 / network_s, 4),
        "s_per_frame": round(network_s, 5),
        "encoder_s_per_frame": round(encoder_s, 5),
        "share_of_peak": round(least_s / encoder_s, 4),
        "peak_rss_mib": round(peak_rss_bytes() / MIB),
    }
    if device.type == "cuda":
        result["peak_device_mib"] = round(torch.cuda.max_memory_allocated(device) / MIB)
    return result


@torch.inference_mode()
def encode(model: LoadedModel, inputs: FrameInputs) -> object:
    """Run the image encoder, adding a vector to every block's input as the whole network does."""
    text_sam, weight = model.network.text_sam, next(model.network.parameters())
    widths = model.network.config.sam.block_dims
    vectors = [weight.new_zeros(len(inputs.sam), width) for width in widths]
    return text_sam.image_encoder(inputs.sam, vectors)


if __name__ == "__main__":
    main()
