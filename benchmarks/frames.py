"""Frames per second of the network alone, and what share of the machine's peak that is.

    python benchmarks/frames.py --preset evf-sam2 --precision fp32,bf16 --batch 1,4 --compile off,on

Runs every combination of the comma lists on prepared frames and prints one JSON object each.
`frames_per_s` is the whole network but for CLAP, which a video needs once a second;
`encoder_s_per_frame` the image encoder alone. `share_of_peak` relates the encoder's operations, as
counted in the plain network, to those that this machine does in the same time in the product of
two large matrices: the fastest of several, in the same run and precision. The last line has the
fastest combination and the peaks. Times mean nothing on a machine that does other work beside.
Resident memory is the process's largest so far; of a GPU, the largest of the combination.
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
    """Measure every combination and print the fastest last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="nano", help=f"of {', '.join(PRESETS)}")
    parser.add_argument("--precision", default="auto", help=f"of {PRECISION_HELP}")
    parser.add_argument("--batch", default="1,4", help="frames at a time")
    parser.add_argument("--compile", default="off", help="off, on or both")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, help="folder that keeps random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    device = choose_device(args.device)
    wanted = dict.fromkeys(choose_precision(p, device) for p in args.precision.split(","))
    peaks = {precision: peak_flops(device, precision) for precision in wanted}
    ways = list(product(wanted, args.compile.split(","), map(int, args.batch.split(","))))
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
    """What every precision, compilation and batch gives for one network."""
    flops = encoder_flops(preset)
    for precision, compiled, batch in ways:
        packed = compiled == "off"
        model = load_model(file, device=device.type, precision=precision, packed=packed)
        if compiled == "on":
            model = compile_network(model, batch)
        asked = {"preset": preset, "precision": precision, "batch": batch, "compile": compiled}
        yield asked | measure(model, batch, runs, flops / peaks[precision])


def measure(model: LoadedModel, batch: int, runs: int, least_s: float) -> Result:
    """Times of the network and of its image encoder.

    Args:
        model: The network.
        batch: Frames at a time.
        runs: Runs of which the median is taken.
        least_s: Seconds of a frame's image encoder at the machine's peak.
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
    """Run the image encoder, its blocks told a vector each as in the whole network."""
    text_sam, weight = model.network.text_sam, next(model.network.parameters())
    widths = model.network.config.sam.block_dims
    vectors = [weight.new_zeros(len(inputs.sam), width) for width in widths]
    return text_sam.image_encoder(inputs.sam, vectors)


if __name__ == "__main__":
    main()
