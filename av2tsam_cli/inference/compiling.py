"""Compiling a model's network for batches of one size."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np

from av2tsam_cli.errors import UsageError
from av2tsam_cli.inference.device import own_threads
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.values import AudioWindow

log = logging.getLogger(__name__)


def compile_network(model: LoadedModel, batch_size: int) -> LoadedModel:
    """Compile a model's network, in place, for batches of one size; it takes a minute or so.

    Raises:
        UsageError: The network cannot be compiled here.
    """
    text_sam = model.network.text_sam
    for part in (text_sam.image_encoder, text_sam.beit3):
        part.compile(dynamic=False)
    compiled = replace(model, compiled_for=batch_size)
    began = time.perf_counter()
    try:
        _try_out(compiled)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise UsageError(f"--compile: does not work here ({reason}); leave it out") from error
    log.warning("compiled the network in %.0f s", time.perf_counter() - began)
    return compiled


def _try_out(model: LoadedModel) -> None:
    """Run the model once as `segment` will."""
    segmenter = Segmenter(model, None if model.hears else "the")
    samples = np.zeros(segmenter.rate_hz, np.float32)
    window = AudioWindow(samples, index=0, rate_hz=segmenter.rate_hz)
    frames = [np.zeros((64, 64, 3), np.uint8)] * (model.compiled_for or 1)
    with own_threads(model.cpu_threads):
        segmenter.logits(segmenter.prepare(frames), [window] * len(frames))
