"""The models of `av2tsam models pull real` in miniature, with every part of the real ones."""

import dataclasses
import io
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap import ClapConfig, ClapEmbedder
from av2tsam_cli.embeddings.clap_text import build_clap_text
from av2tsam_cli.embeddings.clip import ClipEmbedder
from av2tsam_cli.embeddings.clip_text import ClipText
from av2tsam_cli.embeddings.text import TextConfig
from av2tsam_cli.hub.checkpoint import write_tensors
from av2tsam_cli.hub.registry import NamedModel, with_needs
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.model.text_sam import build_text_sam

from .tiny import (
    TINY,
    TINY_CHECKPOINT,
    TINY_SAM2,
    TINY_TEXT,
    TO_SAM2,
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
    TINY,
    name="evf-sam2",
    sam=TINY_SAM2,
    beit3=dataclasses.replace(TINY.beit3, text_positions=64),  # enough for the longest name
    clip=TEXT_CLIP,
    clap=MICROSOFT,
    words=(),
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
        if prefix == "clap_text":
            _tell_phrases_apart(module)
        tensors |= module.state_dict(prefix=f"{prefix}.")
    return tensors


def _tell_phrases_apart(module: nn.Module) -> None:
    """Let the embeddings depend more on the phrase, as the self-check of the models expects."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
            elif name.endswith("bias"):
                parameter.zero_()


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


PUBLISHED_NAMES = {
    "clap-laion": (
        ("clap.htsat.", "module.audio_branch."),
        ("clap.projection.", "module.audio_projection."),
        ("clap_text.encoder.", "module.text_branch."),
        ("clap_text.projection.", "module.text_projection."),
        ("clap_text.logit_scale_text", "module.logit_scale_t"),
        ("clap_text.logit_scale", "module.logit_scale_a"),
    ),
    "clap-microsoft": (
        ("clap.htsat.", "audio_encoder.base.htsat."),
        ("clap.projection.", "audio_encoder.projection."),
        ("clap_text.encoder.", "caption_encoder.base."),
        ("clap_text.projection.", "caption_encoder.projection."),
        ("clap_text.logit_scale", "logit_scale"),
    ),
    "clip-vit-b-32": (
        ("clip.visual.", "visual."),
        ("clip_text.encoder.", ""),
        ("clip_text.", ""),
    ),
}
"""From this tool's names to the published ones; the first that fits counts."""


def published_state(name: str) -> dict[str, Tensor]:
    """Return a model's weights by their published names."""
    if name == "evf-sam2-text":
        names = ((n, evf_name(n)) for n in weights(name))
    else:
        names = ((n, _renamed(n, PUBLISHED_NAMES[name])) for n in weights(name))
    return {new: weights(name)[old].contiguous() for old, new in names}


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    old, new = next(pair for pair in prefixes if name.startswith(pair[0]))
    return new + name.removeprefix(old)


def evf_name(name: str) -> str:
    """Return the name of a tensor in the files of EVF-SAM 2."""
    for pattern, replacement in TO_SAM2:
        name = re.sub(pattern, replacement, name)
    return name.removeprefix("model.")


@cache
def published(name: str) -> bytes:
    """Return a model's published file."""
    if name.endswith("tokenizer"):
        return sentencepiece_model() if name == "beit3-tokenizer" else tiny_bpe("roberta")
    if name == "clap-laion":
        file = io.BytesIO()
        torch.save({"state_dict": published_state(name)}, file)
        return file.getvalue()
    return save(published_state(name))


def registry() -> dict[str, NamedModel]:
    """Return the registry's entries of the set, with the sizes of its miniatures."""
    return {
        entry.name: dataclasses.replace(
            entry,
            sha256=None,
            size=len(published(entry.name)),
            config=config(entry.name) if entry.parts else None,
        )
        for entry in with_needs("real")
    }


def repositories() -> dict[str, dict[str, bytes]]:
    """Return the set's repositories for the fake hub."""
    return {
        str(entry.repository): {str(entry.file): published(entry.name)}
        for entry in with_needs("real")
    }
