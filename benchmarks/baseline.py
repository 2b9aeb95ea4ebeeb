"""How much faster `segment` runs the network than the same network written plainly.

    python benchmarks/baseline.py --preset evf-sam2 --frames 2 --runs 1 --parts

Plainly is how the reference runs it: float32, eager, one frame at a time, SAM 1's blocks and CLIP
and CLAP as their packages have them, softmax(q kT) v elsewhere, and the sound embedded anew for
each frame. Ours is what `segment` runs: `--precision auto`, the default batch, each second heard
once. Both have the same weights, frames and CPU threads and take turns in one process. Shrinking
the frames to the network's sizes is left out of both.

The last line is JSON: `ratio` is how many times as long plainly takes (seconds of a frame, medians
of the runs), `mask_iou` how far the masks agree: the least IoU of a frame. Masks are cut at the
median of the plain logits and not at 0, so that they cover half of each picture also where the
weights are random. With `--parts`, one more run of each says where the time goes.
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
from av2tsam_cli.model.prediction import best_mask
from av2tsam_cli.process import tune_process
from av2tsam_cli.values import AudioWindow

Batch = tuple[FrameInputs, Sequence[AudioWindow]]
Way = Callable[[], Tensor]


def main() -> None:
    """Compare the two ways and print the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--frames", type=int, default=4, help="consecutive ones, 25 a second")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="auto", help=f"ours; {PRECISION_HELP}")
    parser.add_argument("--batch", type=int, help="ours; by default what segment takes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", action="store_true", help="time the network's parts as well")
    parser.add_argument("--weights", type=Path, help="folder that keeps random weights")
    args = parser.parse_args()
    tune_process()  # as the command line does
    device = choose_device(args.device)
    with checkpoint(args.preset, args.weights) as file:
        ours = load_model(file, device=args.device, precision=args.precision)
        network = checkpoints.load_network(file, device, torch.float32)
    plain = replace(ours, network=network, precision="fp32")
    batch = args.batch or ours.batch_size
    result = compare(plain, ours, batch, args.frames, args.runs, parts=args.parts)
    asked = {"preset": args.preset, "precision": ours.precision, "batch": batch}
    asked |= {"frames": args.frames, "runs": args.runs}
    print(json.dumps(result | asked | facts(device)))


def compare(
    plain: LoadedModel, ours: LoadedModel, batch: int, count: int, runs: int, *, parts: bool
) -> dict[str, object]:
    """Times of both ways, how they compare, and how far their masks agree."""
    frames, windows = scene(count, Segmenter(ours).rate_hz)
    ones = [(Segmenter(plain).prepare([f]), [w]) for f, w in zip(frames, windows, strict=True)]
    starts = range(0, count, batch)
    batches = [
        (Segmenter(ours).prepare(frames[k : k + batch]), windows[k : k + batch]) for k in starts
    ]
    run_plainly(plain.network, ones[:1])  # to warm up
    run_ours(ours, batches[:1])
    ways = {
        "plain": lambda: run_plainly(plain.network, ones),
        "ours": lambda: run_ours(ours, batches),
    }
    taken_s, logits = take_turns(ways, runs, ours.device)
    per_frame_s = {way: statistics.median(taken) / count for way, taken in taken_s.items()}
    for model, way in zip((plain, ours), ways, strict=True) if parts else ():
        spent_s = time_parts(model.network, ways[way], ours.device)
        rounded = {name: round(spent / count, 5) for name, spent in spent_s.items()}
        print(json.dumps({"way": way, "s_per_frame_of": rounded}), flush=True)
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
def run_plainly(network: Av2tSam, ones: Sequence[Batch]) -> Tensor:
    """Logits (B, 1, h, w) of batches of one, nothing kept from one to the next."""
    device = next(network.parameters()).device
    logits = []
    for inputs, (window,) in ones:
        seen = network.clip(inputs.clip)
        heard = network.embed_windows(torch.from_numpy(window.samples)[None].to(device))
        with plain_attention():
            logits.append(best_mask(network(inputs.sam, inputs.beit, seen, heard)))
    return torch.cat(logits)


def run_ours(model: LoadedModel, batches: Sequence[Batch]) -> Tensor:
    """Logits (B, 1, h, w), as for a video of these frames."""
    segmenter = Segmenter(model)
    return torch.cat([segmenter.logits(inputs, windows) for inputs, windows in batches])


def take_turns(
    ways: Mapping[str, Way], runs: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of every run of each way, and its logits."""
    taken_s: dict[str, list[float]] = {way: [] for way in ways}
    logits: dict[str, Tensor] = {}
    for _ in range(runs):
        for way, run in ways.items():
            taken_s[way].append(seconds(lambda: logits.update({way: run()}), device))  # noqa: B023
    return taken_s, logits


def agreement(plain: Tensor, ours: Tensor) -> list[float]:
    """IoU of each frame's masks, both cut at the median of the plain logits."""
    plain, ours = plain.flatten(1), ours.flatten(1)
    level = plain.median(dim=1, keepdim=True).values
    one, other = plain > level, ours > level
    inter, union = (one & other).sum(dim=1), (one | other).sum(dim=1)
    return [float(share) for share in inter / union]


def time_parts(network: Av2tSam, run: Way, device: torch.device) -> dict[str, float]:
    """Seconds of one run in all, and of that in each part of the network."""
    sam = network.text_sam
    parts = {"image_encoder": sam.image_encoder, "beit3": sam.beit3, "decoder": sam.mask_decoder}
    parts |= {"clip": network.clip, "clap": network.clap}
    with timers(parts, device) as spent_s:
        return {"all": seconds(run, device), **spent_s}


@contextmanager
def timers(
    modules: Mapping[str, torch.nn.Module], device: torch.device
) -> Iterator[Mapping[str, float]]:
    """Add up the seconds that each module takes, the device caught up before and after."""
    spent_s: dict[str, float] = defaultdict(float)

    def note(name: str, sign: int) -> Callable[..., None]:
        def add(*_: Any) -> None:
            wait_for(device)
            spent_s[name] += sign * time.perf_counter()

        return add

    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(note(name, -1)))
        hooks.append(module.register_forward_hook(note(name, 1)))
    try:
        yield spent_s
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main()
