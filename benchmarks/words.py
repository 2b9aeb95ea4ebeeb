"""Seconds per frame by the number of names, and how fast `listen` is, at full size.

    python benchmarks/words.py --preset evf-sam2 --precision bf16 --names 1,2,4

The weights are random, with LAION's CLAP; phrases get random embeddings, which take no time here as
they take none in a video, where they are computed once. `s_per_frame` covers everything that a
frame needs: image encoder, BEiT-3, decoder and CLIP, on the frame and on the masked crops.
`second_name_share` is what the second name adds, relative to a frame with one name.
`listen_realtime` is the seconds of audio that are heard per second, with context windows and with
the 360 sound phrases of the built-in vocabulary compared; `phrases_s` is how long CLAP's text
encoder takes for these phrases, once per run. Run it on an idle machine.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import MIB, facts, median_of, peak_rss_bytes, seconds
from networks import PRECISION_HELP, cast, scene, seeded
from torch import Tensor

from av2tsam_cli.embeddings.clap_text import build_clap_text
from av2tsam_cli.inference.device import choose_device, choose_precision, torch_threads
from av2tsam_cli.inference.loading import LoadedModel, pack_weights
from av2tsam_cli.model.config import LAION_CLAP, PRESETS
from av2tsam_cli.process import tune_process
from av2tsam_cli.values import AudioWindow, HeardSource
from av2tsam_cli.words.segmenter import WordsSegmenter
from av2tsam_cli.words.vocabulary import load_vocabulary

TOKENS_PER_PHRASE = 8
"""Tokens of a phrase, special tokens included; those of the vocabulary have 5 to 10."""


@dataclass(frozen=True)
class RandomPhrases:
    """Gives every phrase a random embedding."""

    width: int
    scale: float = 1.0
    bias: float = 0.0
    names: tuple[str, ...] = ()

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Return embeddings (N, width)."""
        return F.normalize(torch.randn(len(phrases), self.width), dim=1)


class RandomModel(LoadedModel):
    """A model with random weights, without files."""

    def phrase_embedder(self, encoder: str) -> RandomPhrases:
        """Return random embeddings for an encoder."""
        return RandomPhrases(getattr(self.network.config, encoder).embed_dim)

    @property
    def tokenizer(self) -> Callable[[str], Tensor]:
        """A tokenizer that returns random ids."""
        return lambda _: torch.randint(4, 60_000, (1, TOKENS_PER_PHRASE))


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="evf-sam2", choices=[*PRESETS][1:])
    parser.add_argument("--precision", default="auto", help=PRECISION_HELP)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--names", default="1,2,4", help="numbers of names, comma-separated")
    parser.add_argument("--seconds", type=int, default=40, help="seconds of audio to listen to")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    tune_process()  # as the command line does
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    config = replace(PRESETS[args.preset], clap=LAION_CLAP)
    network = cast(seeded(config), precision).to(device)
    model = RandomModel(network, args.preset, Path(args.preset), device, precision, use="words")
    pack_weights(model)
    segmenter = WordsSegmenter(model)
    result: dict[str, object] = {"preset": args.preset, "precision": precision}
    with torch_threads(model.cpu_threads):
        times = time_frames(segmenter, [*map(int, args.names.split(","))], args.runs)
        result |= {"s_per_frame": {k: round(s, 4) for k, s in times.items()}}
        if {1, 2} <= times.keys():
            result["second_name_share"] = round(times[2] / times[1] - 1, 4)
        result["peak_rss_mib"] = round(peak_rss_bytes() / MIB)
        result |= time_listening(segmenter, args.seconds, args.runs)
    print(json.dumps(result | facts(device)))


def time_frames(segmenter: WordsSegmenter, counts: Sequence[int], runs: int) -> dict[int, float]:
    """Return the seconds of a frame in which a number of names are heard, for several numbers.

    They are measured in turn, so that other programs slow all of them down; medians are returned.
    """
    frames, windows = scene(1, segmenter.rate_hz)
    inputs, device = segmenter.prepare(frames), segmenter.model.device
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(runs + 1):  # the first is to warm up
        for count in counts:
            chosen = segmenter.hearing.vocabulary.sources[:count]
            heard = tuple(HeardSource(source.name, 1.0) for source in chosen)
            window = replace(windows[0], sources=heard)
            run = partial(segmenter.source_logits, inputs, [window])
            times[count].append(seconds(run, device))
    return {count: statistics.median(measured[1:]) for count, measured in times.items()}


def time_listening(segmenter: WordsSegmenter, audio_s: int, runs: int) -> dict[str, float]:
    """Return how much faster than real time a track is heard, and the time of the phrases."""
    rng, rate_hz = np.random.default_rng(0), segmenter.rate_hz
    samples = rng.normal(0, 0.1, (audio_s, rate_hz)).astype(np.float32)
    windows = [AudioWindow(second, k, rate_hz) for k, second in enumerate(samples)]
    device = segmenter.model.device
    listening_s = median_of(lambda: [*segmenter.hear(iter(windows))], runs, device)
    text = build_clap_text(LAION_CLAP).to(device).eval()
    phrases = sum(len(source.sounds) for source in load_vocabulary().sources)
    ids = torch.randint(4, 50_000, (phrases, TOKENS_PER_PHRASE), device=device)
    with torch.inference_mode():
        phrases_s = seconds(partial(text, ids), device)
    return {
        "listen_realtime": round(audio_s / listening_s, 1),
        "phrases": phrases,
        "phrases_s": round(phrases_s, 2),
    }


if __name__ == "__main__":
    main()
