"""Load time, peak memory relative to the weights, and seconds per frame of a checkpoint.

`python benchmarks/full_size.py FILE.safetensors [--dtype bfloat16] [--device cuda]` prints one
JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import peak_rss_bytes, seconds

from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.sam import best_mask


def time_frame(model: Av2tSam, device: torch.device) -> dict[str, float]:
    """Return the seconds of each stage for one random frame and audio window."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (1, 3, 720, 1280), dtype=torch.uint8, generator=generator)
    windows = torch.randn(1, model.config.clap.rate_hz, generator=generator) * 0.1
    frames, windows = frames.to(device), windows.to(device)
    clip_image = model.clip.preprocess(frames)
    sam_image, beit_image = model.prepare(frames)
    clip, clap = model.clip(clip_image), model.embed_windows(windows)
    projection = model.projector(clip, clap)
    vectors = model.adapter(projection.feature) if model.adapter is not None else None
    features = model.text_sam.encode_image(sam_image, vectors)
    prompt = model.text_sam.encode_prompt(beit_image, projection.tokens)
    stages: dict[str, Callable[[], object]] = {
        "prepare": lambda: (model.prepare(frames), model.clip.preprocess(frames)),
        "clip": lambda: model.clip(clip_image),
        "clap": lambda: model.embed_windows(windows),
        "image_encoder": lambda: model.text_sam.encode_image(sam_image, vectors),
        "beit3": lambda: model.text_sam.encode_prompt(beit_image, projection.tokens),
        "decoder": lambda: best_mask(model.text_sam.decode(features, prompt)),
    }
    return {name: seconds(step, device) for name, step in stages.items()}


def main() -> None:
    """Load the checkpoint, run it once to warm up and once to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    before = peak_rss_bytes()
    start = time.perf_counter()
    dtype = getattr(torch, options.dtype) if options.dtype else None
    model = load_network(options.file, device, dtype)
    # Reading every weight makes all of them resident.
    finite = all(bool(p.detach().sum().isfinite()) for p in model.parameters())
    loaded = time.perf_counter() - start
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    result: dict[str, object] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "finite": finite,
        "load_s": loaded,
        "parameter_bytes": size,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_over_parameters": peak_rss_bytes() / size,
        "rss_before_bytes": before,
    }
    with torch.inference_mode():
        result |= {"seconds": time_frame(model, device), "peak_rss_run_bytes": peak_rss_bytes()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
