"""Networks and inputs for the benchmarks, and plain implementations to compare with.

Full-size presets get seeded random weights, which take the same time as trained ones. nano is the
model that comes with the package.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from av2tsam_cli.hub import locate
from av2tsam_cli.hub.checkpoint import RUN_IN_FLOAT32, STORED_IN_FLOAT32, save_network
from av2tsam_cli.hub.registry import BUNDLED_MODEL
from av2tsam_cli.inference.device import PRECISIONS
from av2tsam_cli.model import sam
from av2tsam_cli.model.av2tsam import Av2tSam, build, build_empty
from av2tsam_cli.model.config import PRESETS, ModelConfig
from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.synth.clips import SMALL_H264
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.values import AudioWindow, UInt8Array

SPREAD = 0.02
"""Standard deviation of the weights that constructors leave at zero."""
SIZE, RATE = (640, 360), 25
"""Width and height in pixels, and frames per second, of the input frames."""
SCENES, RATE_HZ = 12, 16_000
"""Number of different scenes in a video, and its audio sample rate."""
PRECISION_HELP = "auto, fp32, bf16 or fp16"


@contextmanager
def checkpoint(preset: str, folder: Path | None = None) -> Generator[Path, None, None]:
    """Yield the checkpoint of a preset: nano's own, otherwise one with random weights.

    Args:
        preset: Name of the preset.
        folder: Folder in which random weights are kept for later runs; None to delete them.
    """
    if preset == BUNDLED_MODEL:
        yield locate.resolve(preset)
        return
    with nullcontext(folder) if folder else TemporaryDirectory() as kept:
        path = Path(kept) / f"{preset}.safetensors"
        if not path.exists():
            save_network(seeded(PRESETS[preset]), path)
        yield path


def seeded(config: ModelConfig, seed: int = 0) -> Av2tSam:
    """Build a random network in which every weight affects the result, as in a trained one.

    Weights that constructors leave at zero (adapters, relative positions, biases) are random too.
    The head that predicts each mask's IoU clearly prefers the last mask, so that the choice does
    not depend on rounding.
    """
    torch.manual_seed(seed)
    network = build(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=SPREAD)
    _prefer_last_mask(network)
    return network


def random_network(config: ModelConfig, device: torch.device, seed: int = 0) -> Av2tSam:
    """Build a random network in float32 directly on a device, which takes seconds on a GPU.

    Norms are one, everything else has a standard deviation of `SPREAD`. As in `seeded`, the choice
    of the mask does not depend on rounding.
    """
    network = build_empty(config)
    generator = torch.Generator(device).manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, like in network.state_dict().items():
        if not like.is_meta:  # computed by HTSAT
            state[name] = like.to(device)
        elif not like.is_floating_point():
            state[name] = torch.zeros(like.shape, dtype=like.dtype, device=device)
        elif like.ndim == 1 and name.endswith("weight"):
            state[name] = torch.ones(like.shape, device=device)
        else:
            state[name] = torch.randn(like.shape, device=device, generator=generator) * SPREAD
    network.load_state_dict(state, assign=True)
    _prefer_last_mask(network)
    return network.eval().requires_grad_(False)


def cast(network: Av2tSam, precision: str) -> Av2tSam:
    """Return a network with the same weights in the types in which `load_model` runs them."""
    kept = (*STORED_IN_FLOAT32, *RUN_IN_FLOAT32)
    dtype = PRECISIONS[precision]
    state = {
        name: tensor.to(dtype)
        if tensor.is_floating_point() and not name.startswith(kept)
        else tensor
        for name, tensor in network.state_dict().items()
    }
    result = build_empty(network.config)
    result.load_state_dict(state, assign=True)
    return result.eval().requires_grad_(False)


def _prefer_last_mask(network: Av2tSam) -> None:
    choice = network.text_sam.mask_decoder.iou_prediction_head.layers[-1].bias
    with torch.no_grad():
        choice.copy_(torch.arange(len(choice)))


def scene(count: int, rate_hz: int) -> tuple[list[UInt8Array], list[AudioWindow]]:
    """Draw frames (H, W, 3), 25 per second, and return them with the audio window of each."""
    drawn = sample_scene(scene_rng("test", 0, 0), subset="s4")
    renderer, sound = Renderer(drawn, *SIZE), soundtrack(drawn, rate_hz)
    windows = [
        AudioWindow(sound[k * rate_hz : (k + 1) * rate_hz], k, rate_hz)
        for k in range(drawn.duration_s)
    ]
    times = [index % (len(windows) * RATE) for index in range(count)]
    frames = [renderer.frame(time / RATE)[0] for time in times]
    return frames, [windows[time // RATE] for time in times]


def write_video(path: Path, seconds: int, *, size: tuple[int, int], rate: int) -> None:
    """Write a video of several scenes with sound at 16 kHz.

    Args:
        path: The MP4 file to write.
        seconds: Length of the video.
        size: Width and height in pixels, both even.
        rate: Frames per second.
    """
    scenes = [sample_scene(scene_rng("test", 5, index), subset="ms3") for index in range(SCENES)]
    renderers = [Renderer(scene, *size) for scene in scenes]
    sounds = [soundtrack(scene, RATE_HZ) for scene in scenes]
    order = [index % SCENES for index in range(-(-seconds // scenes[0].duration_s))]
    times = [n / rate for n in range(scenes[0].duration_s * rate)]
    frames = chain.from_iterable((renderers[k].frame(t)[0] for t in times) for k in order)
    sound = np.concatenate([sounds[k] for k in order])[: seconds * RATE_HZ]
    shown = islice(frames, seconds * rate)
    write_clip(path, shown, sound, size=size, rate=rate, rate_hz=RATE_HZ, h264=SMALL_H264)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Use plain attention inside the block: segment_anything's in SAM 1, three lines elsewhere."""
    with (
        patch.object(F, "scaled_dot_product_attention", softmax_attention),
        patch.object(sam, "_run_vit_block", lambda block, tokens: block(tokens)),
    ):
        yield


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute softmax(scale q kT) v over (B, heads, tokens, c); mask False hides a key."""
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, float("-inf"))
    return logits.softmax(dim=-1) @ v


def encoder_flops(preset: str) -> int:
    """Count the operations of the plain image encoder for one frame.

    A multiplication and an addition are two operations. Only matrix products and convolutions are
    counted, on the meta device, so that nothing is computed.
    """
    network = build_empty(PRESETS[preset])
    config = network.config.sam
    images = torch.empty(1, 3, config.image_size, config.image_size, device="meta")
    vectors = [torch.empty(1, width, device="meta") for width in config.block_dims]
    with torch.inference_mode(), plain_attention(), FlopCounterMode(display=False) as counter:
        network.text_sam.image_encoder(images, vectors)
    return int(counter.get_total_flops())
