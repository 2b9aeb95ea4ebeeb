"""The parts that `peers.py` compares: ours, and the same networks as their packages build them.

Every function that builds a peer imports its package itself: each side runs in its own process, and
ours must not import the peers' packages.
"""

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap import ClapConfig
from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.inference.device import PRECISIONS
from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import Beit3Config, ModelConfig, Sam2Config, SamConfig
from av2tsam_cli.process import tune_process

Inputs = tuple[Tensor, ...]

SMALL_SAM_DECODER: dict[str, Any] = {
    "decoder_dim": 16,
    "decoder_heads": 2,
    "decoder_mlp_dim": 24,
    "iou_head_dim": 16,
}
SMALL = ModelConfig(
    name="small",
    sam=SamConfig(
        image_size=64,
        patch_size=8,
        dim=24,
        depth=2,
        heads=3,
        window_size=3,
        global_blocks=(1,),
        **SMALL_SAM_DECODER,
    ),
    beit3=Beit3Config(
        image_size=32, dim=16, heads=2, ffn_dim=24, depth=2, vocabulary_size=12, text_positions=16
    ),
    clip=ClipConfig(embed_dim=12, image_size=32, layers=1, width=16, head_width=8, patch_size=16),
    clap=ClapConfig(
        embed_dim=10,
        rate_hz=8_000,
        mel_rate_hz=8_000,
        n_fft=256,
        hop=250,
        mel_bins=16,
        fmax_hz=4_000,
        clip_samples=8_000,
        spec_size=32,
        dim=8,
        depths=(2, 2),
        heads=(1, 2),
        window_size=4,
        classes=1,
    ),
    feature_dim=14,
)
"""A network in which the parts that are not measured take no time."""
SMALL_SAM2 = Sam2Config(
    image_size=96,
    dim=8,
    heads=2,
    stages=(1, 2, 3, 1),
    global_blocks=(4,),
    windows=(6, 4, 4, 2),
    background=(7, 7),
    **SMALL_SAM_DECODER,
)


@dataclass(frozen=True)
class Part:
    """A part of the network and its peer."""

    field: str
    """Field of `ModelConfig` with the part's sizes."""
    full: Any
    """Those sizes as the paper has them."""
    small: Any
    """The same architecture in a size for tests."""
    peer_name: str
    """What it is compared with."""
    inputs: Callable[[Any], Inputs]
    """Makes the inputs for one frame or one second of sound from the sizes."""
    ours: Callable[[Av2tSam], nn.Module]
    """Takes our part out of a loaded network."""
    theirs: Callable[[Any], nn.Module]
    """Builds the peer from the sizes; it accepts the same inputs."""

    def sizes(self, *, small: bool) -> Any:
        """Return the sizes to measure."""
        return self.small if small else self.full

    def config(self, *, small: bool) -> ModelConfig:
        """Return a network with this part and small ones beside it."""
        return replace(SMALL, **{self.field: self.sizes(small=small)})


# --- the peers -----------------------------------------------------------------------------------


def transformers_sam2(sizes: Sam2Config) -> nn.Module:
    """SAM 2's image encoder and FPN from transformers."""
    from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

    side = sizes.image_size
    backbone = Sam2HieraDetConfig(
        image_size=[side, side],
        hidden_size=sizes.dim,
        num_attention_heads=sizes.heads,
        blocks_per_stage=list(sizes.stages),
        embed_dim_per_stage=list(sizes.stage_dims),
        num_attention_heads_per_stage=[sizes.heads * 2**n for n in range(len(sizes.stages))],
        window_size_per_stage=list(sizes.windows),
        global_attention_blocks=list(sizes.global_blocks),
        window_positional_embedding_background_size=list(sizes.background),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(sizes.stage_dims)),
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=sizes.decoder_dim,
    )
    network: nn.Module = Sam2VisionModel(vision)
    return network


def segment_anything_vit(sizes: SamConfig) -> nn.Module:
    """SAM 1's image encoder from segment_anything."""
    from segment_anything.modeling import ImageEncoderViT

    network: nn.Module = ImageEncoderViT(
        img_size=sizes.image_size,
        patch_size=sizes.patch_size,
        embed_dim=sizes.dim,
        depth=sizes.depth,
        num_heads=sizes.heads,
        mlp_ratio=sizes.mlp_ratio,
        out_chans=sizes.decoder_dim,
        norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes.window_size,
        global_attn_indexes=sizes.global_blocks,
    )
    return network


def open_clip_tower(sizes: ClipConfig) -> nn.Module:
    """CLIP's image tower from open_clip."""
    import open_clip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(
        layers=sizes.layers,
        width=sizes.width,
        head_width=sizes.head_width,
        patch_size=sizes.patch_size,
        image_size=sizes.image_size,
    )
    text = CLIPTextCfg(layers=1)
    network: nn.Module = open_clip.CLIP(sizes.embed_dim, vision, text, sizes.quick_gelu).visual
    return network


class LaionClap(nn.Module):
    """CLAP's audio tower and projection from laion_clap, as `get_audio_embedding` runs them."""

    def __init__(self, sizes: ClapConfig) -> None:
        super().__init__()
        self.clip_samples = sizes.clip_samples
        self.tower = _htsat_module().HTSAT_Swin_Transformer(
            spec_size=sizes.spec_size,
            patch_size=sizes.patch_size,
            patch_stride=(sizes.patch_size, sizes.patch_size),
            num_classes=sizes.classes,
            embed_dim=sizes.dim,
            depths=list(sizes.depths),
            num_heads=list(sizes.heads),
            window_size=sizes.window_size,
            config=SimpleNamespace(
                mel_bins=sizes.mel_bins,
                sample_rate=sizes.mel_rate_hz,
                window_size=sizes.n_fft,
                hop_size=sizes.hop,
                fmin=sizes.fmin_hz,
                fmax=sizes.fmax_hz,
            ),
        )
        self.projection = nn.Sequential(
            nn.Linear(sizes.latent_dim, sizes.embed_dim),
            nn.ReLU(),
            nn.Linear(sizes.embed_dim, sizes.embed_dim),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Embed mono samples (1, n)."""
        repeated = windows.repeat(1, max(self.clip_samples // windows.shape[1], 1))
        padded = F.pad(repeated, (0, self.clip_samples - repeated.shape[1]))
        latent = self.tower({"waveform": padded})["embedding"]
        return F.normalize(self.projection(latent), dim=-1)


def _htsat_module() -> Any:
    """Import laion_clap's HTSAT module without running the `__init__` of its packages.

    That parses `sys.argv` and downloads tokenizers.
    """
    package = importlib.util.find_spec("laion_clap")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("laion_clap is not installed")
    folder = Path(package.submodule_search_locations[0])
    for name, path in (("laion_clap", folder), ("laion_clap.clap_module", folder / "clap_module")):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    return importlib.import_module("laion_clap.clap_module.htsat")


class TransformersClap(nn.Module):
    """CLAP's audio model from transformers, with its feature extractor."""

    def __init__(self, sizes: ClapConfig) -> None:
        super().__init__()
        from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

        self.rate_hz = sizes.rate_hz
        self.extractor = ClapFeatureExtractor(
            feature_size=sizes.mel_bins,
            sampling_rate=sizes.rate_hz,
            hop_length=sizes.hop,
            max_length_s=sizes.clip_samples // sizes.rate_hz,
            fft_window_size=sizes.n_fft,
            frequency_min=sizes.fmin_hz,
            frequency_max=sizes.fmax_hz,
            truncation="rand_trunc",  # as in laion/clap-htsat-unfused
        )
        config = ClapAudioConfig(
            window_size=sizes.window_size,
            num_mel_bins=sizes.mel_bins,
            spec_size=sizes.spec_size,
            patch_size=sizes.patch_size,
            patch_stride=[sizes.patch_size, sizes.patch_size],
            num_classes=sizes.classes,
            hidden_size=sizes.latent_dim,
            projection_dim=sizes.embed_dim,
            depths=list(sizes.depths),
            num_attention_heads=list(sizes.heads),
            num_hidden_layers=len(sizes.depths),
            patch_embeds_hidden_size=sizes.dim,
        )
        self.model = ClapAudioModelWithProjection(config)

    def forward(self, windows: Tensor) -> Tensor:
        """Embed mono samples (1, n)."""
        features = self.extractor(
            windows[0].float().numpy(), sampling_rate=self.rate_hz, return_tensors="pt"
        )
        image = features["input_features"].to(windows.dtype)
        embeddings: Tensor = self.model(image, is_longer=features["is_longer"]).audio_embeds
        return embeddings


def plain_beit3(sizes: Beit3Config) -> nn.Module:
    """Our plain re-implementation of torchscale's encoder."""
    from plain_beit3 import PlainBeit3

    return PlainBeit3(sizes)


# --- the inputs ----------------------------------------------------------------------------------


def image(sizes: SamConfig | Sam2Config | ClipConfig) -> Inputs:
    """A normalised image."""
    return (torch.randn(1, 3, sizes.image_size, sizes.image_size),)


def image_and_text(sizes: Beit3Config) -> Inputs:
    """A normalised image and the three text tokens of the projector."""
    side = sizes.image_size
    return torch.randn(1, 3, side, side), torch.randn(1, 3, sizes.dim)


def second_of_sound(sizes: ClapConfig) -> Inputs:
    """One second of mono samples."""
    return (torch.rand(1, sizes.rate_hz) - 0.5,)


PARTS = {
    "hiera-l": Part(
        "sam",
        Sam2Config(),
        SMALL_SAM2,
        "transformers Sam2VisionModel",
        image,
        lambda network: network.text_sam.image_encoder,
        transformers_sam2,
    ),
    "vit-h": Part(
        "sam",
        SamConfig(),
        SMALL.sam,
        "segment_anything ImageEncoderViT",
        image,
        lambda network: network.text_sam.image_encoder,
        segment_anything_vit,
    ),
    "beit3": Part(
        "beit3",
        Beit3Config(),
        SMALL.beit3,
        "plain re-implementation of torchscale's encoder",
        image_and_text,
        lambda network: network.text_sam.beit3,
        plain_beit3,
    ),
    "clip": Part(
        "clip",
        ClipConfig(),
        SMALL.clip,
        "open_clip image tower",
        image,
        lambda network: network.clip,
        open_clip_tower,
    ),
    "clap": Part(
        "clap",
        ClapConfig(),
        SMALL.clap,
        "laion_clap HTSAT",
        second_of_sound,
        lambda network: network.clap,
        LaionClap,
    ),
    "clap-transformers": Part(
        "clap",
        ClapConfig(),
        SMALL.clap,
        "transformers ClapAudioModelWithProjection and ClapFeatureExtractor",
        second_of_sound,
        lambda network: network.clap,
        TransformersClap,
    ),
}


# --- the process of one side ---------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """What one process runs."""

    name: str
    """`ours`, `ours_mapped` or `theirs`."""
    part: str
    """A key of `PARTS`."""
    small: bool
    """Whether the part has the size for tests."""
    precision: str
    """Numeric precision: `fp32` or `bf16`."""
    threads: int
    """CPU threads of PyTorch."""
    keeps_freed_memory: bool
    """Whether the process has the malloc settings of `av2tsam segment`."""


def serve(connection: Connection, side: Side, checkpoint: Path) -> None:
    """Run one side in this process: time the network whenever the other end sends a message.

    Sends the number of weights first, then wall and CPU seconds of every run.
    """
    del sys.argv[1:]  # packages that parse it at import would fail
    torch.set_num_threads(side.threads)
    torch.manual_seed(0)
    if side.keeps_freed_memory:
        tune_process()
    part, dtype = PARTS[side.part], PRECISIONS[side.precision]
    inputs = part.inputs(part.sizes(small=side.small))
    if side.name == "theirs":
        module = part.theirs(part.sizes(small=side.small)).eval().to(dtype)
        inputs = tuple(tensor.to(dtype) for tensor in inputs)
    else:
        network = load_model(checkpoint, device="cpu", precision=side.precision).network
        module = part.ours(network)
    if side.name == "ours_mapped":
        map_weights(network, checkpoint)
    time_run(module, inputs)  # to warm up
    connection.send(sum(weight.numel() for weight in module.state_dict().values()))
    while True:
        connection.recv()
        connection.send(time_run(module, inputs))


def map_weights(network: nn.Module, checkpoint: Path) -> None:
    """Replace the parameters by tensors in the memory-mapped file, where the types are equal."""
    with safe_open(checkpoint, framework="pt") as file:
        for name, parameter in network.named_parameters():
            mapped = file.get_tensor(name)
            if mapped.dtype == parameter.dtype:
                parameter.data = mapped


@torch.inference_mode()
def time_run(module: nn.Module, inputs: Inputs) -> tuple[float, float]:
    """Return wall and CPU seconds of one run."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    module(*inputs)
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s
