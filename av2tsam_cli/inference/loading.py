"""Load a model by name or path, ready to run on a device."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import torch

from av2tsam_cli.embeddings.clap_text import LaionText
from av2tsam_cli.embeddings.clip_text import ClipText, ClipTokenizer
from av2tsam_cli.embeddings.names import NameEmbedder
from av2tsam_cli.embeddings.text import (
    BpeKind,
    Gpt2Tokenizer,
    PhraseEmbedder,
    PhraseTokenizer,
    RobertaTokenizer,
    TextEmbedder,
    read_bpe,
)
from av2tsam_cli.errors import WeightsError
from av2tsam_cli.files import content_id
from av2tsam_cli.hub import checkpoint, locate
from av2tsam_cli.hub.locate import Use
from av2tsam_cli.inference.device import (
    PRECISIONS,
    choose_device,
    choose_precision,
    free_memory,
    torch_threads,
)
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import LAION_CLAP, MICROSOFT_CLAP, ModelConfig
from av2tsam_cli.model.cpu import can_pack, cpu_capabilities, pack
from av2tsam_cli.model.text import Tokenizer, tokenizer_for

PARTS: dict[Use, tuple[str, ...]] = {
    "trained": checkpoint.MODEL_PARTS,
    "words": ("clip", "clap", "text_sam"),
    "text": ("text_sam",),
    "sounds": ("clap",),
}
"""The parts of a network that each use needs."""
LIGHT_PARAMETERS = 50_000_000
"""Networks with fewer parameters are light: a frame takes milliseconds on a CPU, not seconds."""


@dataclass(frozen=True)
class _Defaults:
    """The best values for one kind of device and one size of network, from measurements."""

    batch_size: int
    """Frames per batch."""
    compile_from: int | None
    """Number of frames from which on compiling saves time; None if it never does."""


_LIGHT_DEFAULTS = {
    "cpu": _Defaults(batch_size=4, compile_from=20_000),
    "cuda": _Defaults(batch_size=32, compile_from=None),
    "mps": _Defaults(batch_size=8, compile_from=3000),
}
_FULL_SIZE_DEFAULTS = {
    "cpu": _Defaults(batch_size=1, compile_from=None),  # packed weights are faster
    "cuda": _Defaults(batch_size=16, compile_from=20_000),
    "mps": _Defaults(batch_size=2, compile_from=300),
}


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to run."""

    network: Av2tSam = field(repr=False)
    """The network, in evaluation mode, on the device."""
    name: str
    """Name of the model, or the path of its checkpoint."""
    path: Path
    """The checkpoint."""
    device: torch.device
    """The device."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    use: Use = "trained"
    """The use that it was loaded for. Parts that are not needed are on the meta device."""
    weights_id: str = ""
    """Hash of the content of the files with its weights, see `files.content_id`."""
    compiled_for: int | None = None
    """Batch size that the network is compiled for; None if it is not compiled."""

    @property
    def identity(self) -> ModelIdentity:
        """The properties that determine its masks."""
        return ModelIdentity(self.name, self.weights_id, self.precision)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the network's text prompts.

        Raises:
            WeightsError: A file that it needs is missing or corrupted.
        """
        config = self.network.config
        file = None if config.words else locate.tokenizer_file(self.path)
        return tokenizer_for(config, file)

    def phrase_embedder(self, encoder: Literal["clap", "clip"]) -> PhraseEmbedder:
        """Load an embedder of phrases in the space of CLAP or CLIP.

        This is a text encoder, or a table of names for small models. It is not loaded with the
        model, and its memory is freed when the caller drops it.

        Args:
            encoder: The encoder of sounds or images in whose space to embed phrases.

        Raises:
            WeightsError: The encoder has neither a text encoder nor names, or a file is missing.
        """
        config = self.network.config
        module = self.network.clap if encoder == "clap" else self.network.clip
        if module.names is not None:
            return NameEmbedder(getattr(config, encoder).names, module.names)
        return load_phrase_embedder(file_of(encoder, self.path, config), encoder, self.device)

    @cached_property
    def light(self) -> bool:
        """Whether a frame takes milliseconds on a CPU, not seconds."""
        return is_light(self.network)

    @property
    def _defaults(self) -> _Defaults:
        table = _LIGHT_DEFAULTS if self.light else _FULL_SIZE_DEFAULTS
        return table[self.device.type]

    @property
    def batch_size(self) -> int:
        """Default number of frames per batch; on CUDA, it depends on the free memory."""
        size = self._defaults.batch_size
        if self.device.type != "cuda":
            return size
        return max(1, min(size, free_memory(self.device) // self._bytes_per_frame))

    @property
    def _bytes_per_frame(self) -> int:
        """Estimated memory of one frame in the widest block of the image encoder."""
        sam = self.network.config.sam
        side = sam.grid if sam.kind == "sam" else sam.image_size // 4
        # Input, queries, keys, values, output, the hidden layer twice, and PyTorch's cache.
        return 20 * side**2 * sam.dim * PRECISIONS[self.precision].itemsize

    @property
    def compile_from(self) -> int | None:
        """Number of frames from which on compiling saves time; None if it never does."""
        return self._defaults.compile_from

    @property
    def cpu_threads(self) -> int:
        """CPU threads for the network; a light one leaves half of the cores to the codecs."""
        # Only the cores that this process may use, if the system reports them.
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
        return max(1, cores // 2) if self.light else cores


def load_phrase_embedder(
    path: Path, encoder: Literal["clap", "clip"], device: torch.device | str = "cpu"
) -> TextEmbedder:
    """Load the text encoder and tokenizer of a CLAP or CLIP.

    Args:
        path: The file of CLAP or CLIP, such as `locate.installed_path("clap-laion")`.
        encoder: `clap` or `clip`.
        device: Device for the weights.

    Raises:
        WeightsError: The file or the tokenizer is missing or corrupted, or the file has no text
            encoder.
    """
    part: checkpoint.TextPart = "clap_text" if encoder == "clap" else "clip_text"
    text = checkpoint.load_text_encoder(path, part, device)
    return TextEmbedder(text, _phrase_tokenizer(text, path))


def _phrase_tokenizer(text: torch.nn.Module, path: Path) -> PhraseTokenizer:
    """Return the tokenizer of a text encoder; CLAP's can also be beside the checkpoint."""
    if isinstance(text, ClipText):
        return ClipTokenizer()
    kind: BpeKind = "roberta" if isinstance(text, LaionText) else "gpt2"
    file = locate.bpe_file(kind, path)
    model, found = read_bpe(file)
    if found != kind:
        raise WeightsError(f"{file}: the tokenizer of {found}, not of {kind}; replace it")
    return RobertaTokenizer(model) if kind == "roberta" else Gpt2Tokenizer(model)


def is_light(network: torch.nn.Module) -> bool:
    """Return whether a network has few parameters, including packed weights, which are buffers."""
    weights = chain(network.parameters(), network.buffers())
    return sum(weight.numel() for weight in weights) < LIGHT_PARAMETERS


def load_model(
    model: str | Path | None = None,
    *,
    use: Use | None = None,
    device: str = "auto",
    precision: str = "auto",
    packed: bool = True,
) -> LoadedModel:
    """Load a model.

    Args:
        model: A name from 'av2tsam models list', the path of a checkpoint, or None for the best
            installed model.
        use: Which parts to load: `trained` for all, `words` to name and segment what is heard,
            `text` for text prompts, `sounds` for CLAP, to only name what is heard; None for
            `default_use`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        packed: Whether to call `pack_weights`; set it to False if the network will be compiled.

    Raises:
        UsageError: The device or the precision is not available.
        WeightsError: The checkpoint, or a file that it needs for this use, is missing, corrupted or
            of another architecture.
    """
    chosen_device = choose_device(device)
    chosen = choose_precision(precision, chosen_device)
    model, path, use = _choose(model, use)
    config = None
    if use in {"words", "sounds"}:
        config = words_config(path) if use == "words" else sounds_config(path)
    # Every thread that computes in parallel keeps its OpenMP workers. The network may run on
    # another thread, and would be slower with more workers than cores.
    with torch_threads(1):
        network = checkpoint.load_network(
            path, chosen_device, PRECISIONS[chosen], parts=PARTS[use], config=config
        )
        loaded = LoadedModel(
            network=network,
            name=str(model),
            path=path,
            device=chosen_device,
            precision=chosen,
            use=use,
            weights_id=_weights_id(path, use),
        )
        if packed:
            pack_weights(loaded)
    return loaded


def _choose(model: str | Path | None, use: Use | None) -> tuple[str | Path, Path, Use]:
    """Return the name or path of a model, its checkpoint, and its use."""
    model = locate.default_model(use) if model is None else model
    path = locate.resolve(model)
    return model, path, use or default_use(path)


@dataclass(frozen=True)
class ModelIdentity:
    """The properties of a model that determine its masks."""

    name: str
    """Name of the model, or the path of its checkpoint."""
    weights_id: str
    """Hash of the content of the files with its weights, see `files.content_id`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""


def identify(
    model: str | Path | None, *, use: Use | None, device: str, precision: str
) -> ModelIdentity:
    """Return the `identity` of a model without loading it; see `load_model`.

    Raises:
        UsageError: The device or the precision is not available.
        WeightsError: A file with weights is missing or unreadable.
    """
    chosen = choose_precision(precision, choose_device(device))
    name, path, use = _choose(model, use)
    return ModelIdentity(str(name), _weights_id(path, use), chosen)


def _weights_id(path: Path, use: Use) -> str:
    try:
        return content_id(*weight_files(path, use))
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def weight_files(path: Path, use: Use) -> list[Path]:
    """Return the files with the weights of a model: its checkpoint, and files of separate parts.

    Raises:
        WeightsError: A file is missing or unreadable.
    """
    read = {"words": words_config, "sounds": sounds_config}.get(use, checkpoint.read_config)
    config = read(path)
    separate = [part for part in locate.SEPARATE_PARTS if part in PARTS[use]]
    missing = [part for part in separate if part not in checkpoint.parts_in(path)]
    return [path, *(locate.part_file(config, part, path) for part in missing)]


def default_use(path: Path) -> Use:
    """Return `trained` if a checkpoint was trained with audio, else `words`.

    Raises:
        WeightsError: It was not trained with audio, and a file for `words` is missing.
    """
    if "projector" in checkpoint.parts_in(path):
        return "trained"
    try:
        words_config(path)
    except WeightsError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise WeightsError(
            f"{path}: contains no weights for audio, only for text prompts; set `text` to a "
            f"phrase, or install what it takes to name sounds ({reason})"
        ) from error
    return "words"


def words_config(path: Path) -> ModelConfig:
    """Return the configuration of a checkpoint for the use `words`.

    See `sounds_config`; CLIP must also be able to embed phrases.

    Raises:
        WeightsError: CLAP, CLIP, a text encoder or a tokenizer is missing.
    """
    clip = _config_with_phrases("clip", path, checkpoint.read_config(path)).clip
    return replace(sounds_config(path), clip=clip)


def sounds_config(path: Path) -> ModelConfig:
    """Return the configuration of a checkpoint for the use `sounds`.

    CLAP must be able to embed phrases. A checkpoint without a trained audio part works with any
    CLAP: LAION's is used if it is complete, else Microsoft's.

    Raises:
        WeightsError: CLAP, its text encoder or a tokenizer is missing.
    """
    config, parts = checkpoint.read_config(path), checkpoint.parts_in(path)
    if "projector" in parts or "clap" in parts:
        _config_with_phrases("clap", path, config)
        return config
    problems = []
    for clap in (LAION_CLAP, MICROSOFT_CLAP):
        try:
            found = _config_with_phrases("clap", path, replace(config, clap=clap))
        except WeightsError as error:
            problems.append(error)
        else:
            return replace(config, clap=found.clap)
    raise problems[0]


def _config_with_phrases(
    encoder: Literal["clap", "clip"], path: Path, config: ModelConfig
) -> ModelConfig:
    """Return the configuration in the file of a checkpoint's CLAP or CLIP.

    Raises:
        WeightsError: The encoder is missing, or cannot embed phrases.
    """
    file = file_of(encoder, path, config)
    if file == path and getattr(config, encoder).names:
        return config
    if encoder == "clip":
        return checkpoint.read_text_config(file, "clip_text")
    found = checkpoint.read_text_config(file, "clap_text")
    locate.bpe_file("roberta" if found.clap.kind == "laion" else "gpt2", file)
    return found


def file_of(encoder: Literal["clap", "clip"], path: Path, config: ModelConfig) -> Path:
    """Return the file with a checkpoint's CLAP or CLIP: the checkpoint itself, or another file.

    Raises:
        WeightsError: It is neither beside the checkpoint nor installed.
    """
    return path if encoder in checkpoint.parts_in(path) else locate.part_file(config, encoder, path)


def pack_weights(model: LoadedModel) -> None:
    """Pack the bf16 weights of the large encoders for this CPU, in place; no effect on a GPU."""
    if "text_sam" not in PARTS[model.use]:
        return
    if model.device.type == "cpu" and can_pack(cpu_capabilities()):
        pack(model.network.text_sam.image_encoder)
        pack(model.network.text_sam.beit3)
