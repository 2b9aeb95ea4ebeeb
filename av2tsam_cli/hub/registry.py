"""The models that have names: what to use each for, and where its weights are published.

Except for nano, this project has neither downloaded nor measured these models. Sizes, licences and
file names are those that the publishers state; `unverified` lists what could not be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports torch, which a list of names does not need
    from av2tsam_cli.model.config import ModelConfig


@dataclass(frozen=True)
class NamedModel:
    """One entry of the registry."""

    name: str
    """Name for `--model` and `av2tsam models`; also the stem of the installed file."""
    purpose: str
    """What to use it for, in a few words."""
    licence: str
    """Licence of the weights, as the publisher states it."""
    parts: tuple[str, ...]
    """Parts of the network in its file; none for a tokenizer."""
    preset: str | None = None
    """Preset with its sizes, for a whole network or the larger part of one."""
    repository: str | None = None
    """Repository on the Hugging Face hub; None for the model that comes with the package."""
    file: str | None = None
    """Path in the repository; None if it is not known until the repository is listed."""
    size: int | None = None
    """Size of the published file in bytes, rounded; None if it is not stated."""
    sha256: str | None = None
    """Checksum of the published file (of the bundled one for nano), if known in advance."""
    unverified: str = ""
    """Which of the above could not be verified. If this names the file, another one is taken when
    the repository has no such file and only one that can be it."""
    needs: tuple[str, ...] = ()
    """Names of further models that it needs to run, which may need others. For a set: its members,
    the network first."""
    suffix: str = ".safetensors"
    """Suffix of the installed file."""
    config: ModelConfig | None = None
    """Sizes of a network without a preset."""

    @property
    def is_set(self) -> bool:
        """Whether the name stands for several models, and there is no file of that name."""
        return self.repository is None and bool(self.needs)

    @property
    def installed_as(self) -> str:
        """File name of the installed model."""
        return self.name + self.suffix

    @property
    def origin(self) -> str:
        """The published file for a message: its name, repository and size."""
        size = "" if self.size is None else f" ({format_bytes(self.size)})"
        return f"{self.file or 'the weights'} from huggingface.co/{self.repository}{size}"


def format_bytes(count: int) -> str:
    """Return a size in decimal units, as the hub does: 2.63 GB."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count} bytes"


BUNDLED_MODEL = "nano"
"""The model that comes with the package."""

REAL = "real"
"""The models that together find and name sound sources in real videos."""

TOKENIZER = "beit3-tokenizer"
"""The tokenizer that the full-size models need for text prompts."""

BPE_TOKENIZERS = {"roberta": "roberta-tokenizer", "gpt2": "gpt2-tokenizer"}
"""The tokenizers of CLAP's text encoders, by whose vocabulary they have."""

_TRAINED_PARTS = ("projector", "adapter", "text_sam")
_UNVERIFIED_WEIGHTS = (
    "which files the repository contains; the authors' page calls them pre-trained backbones, so "
    "the trained weights may not be among them"
)

_ENTRIES = (
    NamedModel(
        name=BUNDLED_MODEL,
        purpose="demo for drawn scenes with synthesised sounds; not for real videos",
        licence="Apache-2.0",
        parts=("clip", "clap", *_TRAINED_PARTS),
        preset="nano",
        sha256="1fdf4d2b6d87f29e9be1ff6d4160318f4dc1dca478ad40bdc62972777c77deaf",
    ),
    NamedModel(
        name=REAL,
        purpose="sound sources in real videos, found by their names",
        licence="Apache-2.0, CC0-1.0",
        parts=("text_sam", "clip", "clap"),
        unverified="nothing of it was ever run with the published weights",
        needs=("evf-sam2-text", "clap-laion", "clip-vit-b-32"),
    ),
    NamedModel(
        name="evf-sam2",
        purpose="sound sources in real videos (AV2T-SAM on SAM 2 Hiera-L)",
        licence="none stated",
        parts=_TRAINED_PARTS,
        preset="evf-sam2",
        repository="Kyungbok/AV2T-SAM",
        unverified=_UNVERIFIED_WEIGHTS,
        needs=("clip-vit-b-32", "clap-microsoft", TOKENIZER),
    ),
    NamedModel(
        name="evf-sam",
        purpose="sound sources in real videos (AV2T-SAM on SAM ViT-H)",
        licence="none stated",
        parts=_TRAINED_PARTS,
        preset="evf-sam",
        repository="Kyungbok/AV2T-SAM",
        unverified=_UNVERIFIED_WEIGHTS,
        needs=("clip-vit-b-32", "clap-microsoft", TOKENIZER),
    ),
    NamedModel(
        name="evf-sam2-text",
        purpose="text prompts in real videos (EVF-SAM 2); training starts from it",
        licence="Apache-2.0",
        parts=("text_sam",),
        preset="evf-sam2",
        repository="YxZhang/evf-sam2-multitask",
        file="model.safetensors",
        size=3_150_000_000,
        unverified="file name and size (those of YxZhang/evf-sam2)",
        needs=(TOKENIZER,),
    ),
    NamedModel(
        name="evf-sam-text",
        purpose="text prompts in real videos (EVF-SAM); training starts from it",
        licence="Apache-2.0",
        parts=("text_sam",),
        preset="evf-sam",
        repository="YxZhang/evf-sam-multitask",
        file="pytorch_model.bin",
        size=2_630_742_858,
        unverified="the exact size (that of YxZhang/evf-sam)",
        needs=(TOKENIZER,),
    ),
    NamedModel(
        name="clap-laion",
        purpose="audio and text encoder of real, and of models trained with it (LAION CLAP)",
        licence="CC0-1.0",
        parts=("clap", "clap_text"),
        repository="lukewys/laion_clap",
        file="630k-audioset-best.pt",
        size=1_860_000_000,
        needs=(BPE_TOKENIZERS["roberta"],),
    ),
    NamedModel(
        name="clap-microsoft",
        purpose="audio and text encoder of evf-sam2 and evf-sam (Microsoft CLAP 2023)",
        licence="MS-PL",
        parts=("clap", "clap_text"),
        repository="microsoft/msclap",
        file="CLAP_weights_2023.pth",
        size=690_000_000,
        needs=(BPE_TOKENIZERS["gpt2"],),
    ),
    NamedModel(
        name="clip-vit-b-32",
        purpose="image and text encoder of real, evf-sam2 and evf-sam (OpenAI CLIP ViT-B/32)",
        licence="Apache-2.0",
        parts=("clip", "clip_text"),
        repository="timm/vit_base_patch32_clip_224.openai",
        file="open_clip_model.safetensors",
        size=605_000_000,
    ),
    NamedModel(
        name=TOKENIZER,
        purpose="tokenizer of all evf-* models",
        licence="Apache-2.0",
        parts=(),
        repository="YxZhang/evf-sam",
        file="sentencepiece.bpe.model",
        size=1_356_293,
        sha256="6f5e2fefcf793761a76a6bfb8ad35489f9c203b25557673284b6d032f41043f4",
        unverified="that the other evf-* repositories have the same tokenizer",
        suffix=".spm",
    ),
    NamedModel(
        name=BPE_TOKENIZERS["roberta"],
        purpose="tokenizer of clap-laion's text encoder",
        licence="Apache-2.0",
        parts=(),
        repository="laion/clap-htsat-unfused",
        file="tokenizer.json",
        size=2_110_000,
        suffix=".bpe",
    ),
    NamedModel(
        name=BPE_TOKENIZERS["gpt2"],
        purpose="tokenizer of clap-microsoft's text encoder",
        licence="MIT",
        parts=(),
        repository="openai-community/gpt2",
        file="tokenizer.json",
        size=1_360_000,
        suffix=".bpe",
    ),
)

MODELS: dict[str, NamedModel] = {entry.name: entry for entry in _ENTRIES}

AUDIO_MODELS: tuple[str, ...] = tuple(
    entry.name for entry in _ENTRIES if "projector" in entry.parts and entry.repository
)
"""Full-size models that find sound sources, best first."""

CLAP_MODELS: tuple[str, ...] = tuple(
    entry.name for entry in _ENTRIES if entry.parts[:1] == ("clap",)
)
"""Models that name sounds and do nothing else, best first."""

TEXT_ONLY_MODELS: tuple[str, ...] = tuple(
    entry.name for entry in _ENTRIES if entry.parts == ("text_sam",)
)
"""Models for text prompts without audio, best first."""


def with_needs(name: str, models: Mapping[str, NamedModel] = MODELS) -> list[NamedModel]:
    """Return a model and all that it needs, each once; of a set, only its members."""
    found: dict[str, NamedModel] = {}
    waiting = [name]
    while waiting:
        model = models[waiting.pop(0)]
        if model.name not in found:
            found[model.name] = model
            waiting = [*model.needs, *waiting]
    return [model for model in found.values() if not model.is_set]


def members(name: str) -> list[str]:
    """Return the names of the models in a set with all that they need, or the name of one model."""
    is_set = name in MODELS and MODELS[name].is_set
    return [model.name for model in with_needs(name)] if is_set else [name]
