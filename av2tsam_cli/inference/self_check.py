"""Check on a few inputs that the files of CLAP and CLIP work.

A damaged or wrongly converted file can have all tensors with the right shapes and still be useless:
with a published conversion of CLAP, unrelated phrases had a cosine of 0.9996
(kazunori279/xls32-fpga-synth#15).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.tensor_file import TensorFile
from av2tsam_cli.inference.loading import file_of, load_phrase_embedder, words_config

MAX_COSINE = 0.99
"""Maximum cosine between the embeddings of unrelated inputs."""

PHRASES = ("a dog barking", "a trumpet", "rain on a roof", "a man speaking")
"""Unrelated phrases for CLAP and CLIP."""

TENSORS_AT_ONCE = 8
"""Number of tensors to read at once, to limit the memory."""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    path: Path
    """The file that was checked."""
    what: str
    """What was checked."""
    cosine: float | None
    """Highest cosine between the embeddings of two inputs; None if not computed."""
    problem: str
    """The problem; "" if there is none."""


def self_check(path: Path) -> Iterator[Check]:
    """Check a network for the use `words`, with its CLAP and its CLIP.

    Args:
        path: The file of the network, such as `locate.resolve("real")`.

    Yields:
        The results of all checks, including failed ones.

    Raises:
        WeightsError: A file is missing or corrupted.
    """
    yield _finite(path)
    config = words_config(path)
    network = load_network(path, dtype=torch.float32, parts=("clip", "clap"), config=config)
    for encoder in ("clap", "clip"):
        file = file_of(encoder, path, config)
        yield _finite(file)
        phrases = load_phrase_embedder(file, encoder)(PHRASES)
        yield _distinct(file, "unrelated phrases", phrases)
        with torch.inference_mode():
            if encoder == "clap":
                sounds = network.embed_windows(_sounds(config.clap.rate_hz))
                yield _distinct(file, "a tone and a bark-like sound", sounds)
            else:
                pictures = network.embed_frames(_pictures())
                yield _distinct(file, "a grey and a textured picture", pictures)


def _finite(path: Path) -> Check:
    """Check that a file contains no infinite values or NaN."""
    file = TensorFile(path)
    names = list(file.tensors)
    broken: list[str] = []
    for start in range(0, len(names), TENSORS_AT_ONCE):
        tensors = file.read(names[start : start + TENSORS_AT_ONCE])
        broken += [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    problem = f"{len(broken)} tensors with NaN or infinity, such as {broken[0]}" if broken else ""
    return Check(path, "all weights", None, problem)


def _distinct(path: Path, what: str, embeddings: Tensor) -> Check:
    """Check that the embeddings (N, E) of N unrelated inputs differ."""
    norms = embeddings.float().norm(dim=1)
    if not norms.isfinite().all() or not norms.all():
        return Check(path, what, None, "embeddings are zero or not finite")
    cosine = _highest_cosine(F.normalize(embeddings.float(), dim=1))
    same = f"embeddings of {what} are nearly the same (cosine {cosine:.4f})"
    return Check(path, what, cosine, same if cosine > MAX_COSINE else "")


def _highest_cosine(units: Sequence[Tensor] | Tensor) -> float:
    return max(float(one @ other) for one, other in combinations(units, 2))


def _sounds(rate_hz: int) -> Tensor:
    """Return one second of a tone, and one second of three bursts of noise, (2, rate_hz)."""
    time_s = torch.arange(rate_hz) / rate_hz
    noise = torch.randn(rate_hz, generator=torch.Generator().manual_seed(0))
    decay = torch.exp(-30 * (time_s % (1 / 3)))
    return torch.stack([0.5 * torch.sin(2 * torch.pi * 440 * time_s), 0.3 * noise * decay])


def _pictures() -> Tensor:
    """Return a grey picture and a picture of coloured noise, uint8, (2, 3, 224, 224), RGB."""
    grey = torch.full((3, 224, 224), 128, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (3, 28, 28), generator=generator, dtype=torch.uint8)
    return torch.stack([grey, tiles.repeat_interleave(8, 1).repeat_interleave(8, 2)])
