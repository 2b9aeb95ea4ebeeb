"""Speed of the network in `segment`, compared with a plain implementation.

    python benchmarks/baseline.py --preset evf-sam2 --frames 2 --runs 1 --parts

The plain implementation runs as the reference does: float32, eager, one frame at a time, SAM 1's
blocks, CLIP and CLAP as in their packages, softmax(q kT) v elsewhere, and the audio embedded again
for every frame. Ours is what `segment` runs: `--precision auto`, the default batch size, every
second of audio embedded once. Both have the same weights, frames and CPU threads and alternate in
one process. Neither includes resizing the frames to the network's input sizes.

The last line is JSON. `ratio` is the time of the plain implementation divided by ours (seconds per
frame, medians of the runs); `mask_iou` is the smallest IoU between the two masks of a frame. Logits
are thresholded at the median of the plain logits instead of 0, so that masks cover half of each
frame even if the weights are random. `--parts` also times the parts of the network, in one more run
of each.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import MIB, facts, peak_rss_bytes, seconds, wait_for
from networks import PRECISION_HELP, checkpoint, plain_attention, scene
from torch import Tensor

from av2tsam_cli.hub import checkpoint as checkpoints
from av2tsam_cli.inference.device import choose_device
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.model.sam import best_mask
from av2tsam_cli.process import tune_process
from av2tsam_cli.values import AudioWindow

Batch = tuple[FrameInputs, Sequence[AudioWindow]]
Implementation = Callable[[], Tensor]


def main() -> None:
    """Compare both and print the ratio on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--frames", type=int, default=4, help="consecutive frames, 25 per second")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="auto", help=f"of ours: {PRECISION_HELP}")
    parser.add_argument("--batch", type=int, help="of ours; default: as segment")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", action="store_true", help="also time the parts of the network")
    parser.add_argument("--weights", type=Path, help="folder in which to keep random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    device = choose_device(args.device)
    with checkpoint(args.preset, args.weights) as file:
        ours = load_model(file, device=args.device, precision=args.precision)
        network = checkpoints.load_network(file, device, torch.float32)
    plain = replace(ours, network=network, precision="fp32")
    batch = args.batch or ours.batch_size
    result = compare(plain, ours, batch, args.frames, args.runs, parts=args.parts)
    settings = {"preset": args.preset, "precision": ours.precision, "batch": batch}
    settings |= {"frames": args.frames, "runs": args.runs}
    print(json.dumps(result | settings | facts(device)))


def compare(
    plain: LoadedModel, ours: LoadedModel, batch: int, count: int, runs: int, *, parts: bool
) -> dict[str, object]:
    """Return the times of both, their ratio, and the agreement of the masks."""
    frames, windows = scene(count, Segmenter(ours).rate_hz)
    ones = [(Segmenter(plain).prepare([f]), [w]) for f, w in zip(frames, windows, strict=True)]
    starts = range(0, count, batch)
    batches = [
        (Segmenter(ours).prepare(frames[k : k + batch]), windows[k : k + batch]) for k in starts
    ]
    run_plain(plain.network, ones[:1])  # to warm up
    run_ours(ours, batches[:1])
    implementations = {
        "plain": lambda: run_plain(plain.network, ones),
        "ours": lambda: run_ours(ours, batches),
    }
    taken_s, logits = take_turns(implementations, runs, ours.device)
    per_frame_s = {name: statistics.median(taken) / count for name, taken in taken_s.items()}
    for model, name in zip((plain, ours), implementations, strict=True) if parts else ():
        spent_s = time_parts(model.network, implementations[name], ours.device)
        rounded = {name: round(spent / count, 5) for name, spent in spent_s.items()}
        print(json.dumps({"implementation": name, "s_per_frame_of": rounded}), flush=True)
    iou = agreement(logits["plain"], logits["ours"])
    return {
        "ratio": round(per_frame_s["plain"] / per_frame_s["ours"], 3),
        "mask_iou": round(min(iou), 5),
        "mask_iou_mean": round(statistics.mean(iou), 5),
        "plain_s_per_frame": round(per_frame_s["plain"], 5),
        "ours_s_per_frame": round(per_frame_s["ours"], 5),
        "peak_rss_mib": round(peak_rss_bytes() / MIB),
    }


@torch.inference_mode()
def run_plain(network: Av2tSam, ones: Sequence[Batch]) -> Tensor:
    """Return logits (B, 1, h, w) of batches of one, sharing nothing between them."""
    device = next(network.parameters()).device
    logits = []
    for inputs, (window,) in ones:
        clip = network.clip(inputs.clip)
        clap = network.embed_windows(torch.from_numpy(window.samples)[None].to(device))
        with plain_attention():
            logits.append(best_mask(network(inputs.sam, inputs.beit, clip, clap)))
    return torch.cat(logits)


def run_ours(model: LoadedModel, batches: Sequence[Batch]) -> Tensor:
    """Return logits (B, 1, h, w), computed as for a video of these frames."""
    segmenter = Segmenter(model)
    return torch.cat([segmenter.logits(inputs, windows) for inputs, windows in batches])


def take_turns(
    implementations: Mapping[str, Implementation], runs: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Return the seconds of every run of each implementation, and its logits."""
    taken_s: dict[str, list[float]] = {name: [] for name in implementations}
    logits: dict[str, Tensor] = {}
    for _ in range(runs):
        for name, run in implementations.items():
            taken_s[name].append(seconds(lambda: logits.update({name: run()}), device))  # noqa: B023
    return taken_s, logits


def agreement(plain: Tensor, ours: Tensor) -> list[float]:
    """Return the IoU of each frame's masks, thresholded at the median of the plain logits."""
    plain, ours = plain.flatten(1), ours.flatten(1)
    level = plain.median(dim=1, keepdim=True).values
    one, other = plain > level, ours > level
    inter, union = (one & other).sum(dim=1), (one | other).sum(dim=1)
    return [float(share) for share in inter / union]


def time_parts(network: Av2tSam, run: Implementation, device: torch.device) -> dict[str, float]:
    """Return the seconds of one run, in total and in each part of the network."""
    sam = network.text_sam
    parts = {"image_encoder": sam.image_encoder, "beit3": sam.beit3, "decoder": sam.mask_decoder}
    parts |= {"clip": network.clip, "clap": network.clap}
    with timers(parts, device) as spent_s:
        return {"all": seconds(run, device), **spent_s}


@contextmanager
def timers(
    modules: Mapping[str, torch.nn.Module], device: torch.device
) -> Iterator[Mapping[str, float]]:
    """Add up the seconds of each module, with the device synchronised before and after."""
    spent_s: dict[str, float] = defaultdict(float)

    def timer(name: str, sign: int) -> Callable[..., None]:
        def add(*_: Any) -> None:
            wait_for(device)
            spent_s[name] += sign * time.perf_counter()

        return add

    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(timer(name, -1)))
        hooks.append(module.register_forward_hook(timer(name, 1)))
    try:
        yield spent_s
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main()
