"""The models of `av2tsam models pull real` in miniature, with every part of the real ones."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap import ClapConfig, ClapEmbedder
from av2tsam_cli.embeddings.clap_text import build_clap_text
from av2tsam_cli.embeddings.clip import ClipEmbedder
from av2tsam_cli.embeddings.clip_text import ClipText
from av2tsam_cli.embeddings.text import TextConfig
from av2tsam_cli.hub.checkpoint import write_tensors
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.text_sam import build_text_sam

from .tiny import (
    TINY,
    TINY_CHECKPOINT,
    TINY_SAM2,
    TINY_TEXT,
    sentencepiece_model,
    shake,
    tiny_bpe,
)

TEXT_CLIP = dataclasses.replace(
    TINY.clip, text=TextConfig(vocabulary_size=49_408, positions=77, dim=16, layers=1, heads=2)
)
LAION = dataclasses.replace(TINY_CHECKPOINT.clap, text=TINY_TEXT)
MICROSOFT = dataclasses.replace(LAION, kind="microsoft", embed_dim=18)
EVF_SAM2 = dataclasses.replace(
    TINY, name="evf-sam2", sam=TINY_SAM2, clip=TEXT_CLIP, clap=MICROSOFT, words=()
)
"""The configuration in the file of evf-sam2-text, which names Microsoft's CLAP, as the real one."""


@cache
def weights(name: str) -> Mapping[str, Tensor]:
    """Return the tensors of a model's file by this tool's names."""
    modules: dict[str, nn.Module]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "evf-sam2-text":
            modules = {"text_sam": build_text_sam(EVF_SAM2.sam, EVF_SAM2.beit3)}
        elif name == "clip-vit-b-32":
            modules = {"clip": ClipEmbedder(TEXT_CLIP), "clip_text": ClipText(TEXT_CLIP)}
        else:
            clap = clap_config(name)
            modules = {"clap": ClapEmbedder(clap), "clap_text": build_clap_text(clap)}
    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        shake(module)
        tensors |= module.state_dict(prefix=f"{prefix}.")
    return tensors


def clap_config(name: str) -> ClapConfig:
    return LAION if name == "clap-laion" else MICROSOFT


def config(name: str) -> ModelConfig:
    """Return the configuration in a model's file."""
    if name.startswith("clap"):
        return dataclasses.replace(EVF_SAM2, clap=clap_config(name))
    return EVF_SAM2


def install(folder: Path, *names: str) -> None:
    """Write models, and all tokenizers, to the folder of installed models, without records."""
    for name in names:
        write_tensors(weights(name), folder / f"{name}.safetensors", config(name))
    (folder / "beit3-tokenizer.spm").write_bytes(sentencepiece_model())
    (folder / "roberta-tokenizer.bpe").write_bytes(tiny_bpe("roberta"))
    (folder / "gpt2-tokenizer.bpe").write_bytes(tiny_bpe("gpt2"))
