"""Augmented training videos: what changes, and that frames, masks and embeddings agree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from av2tsam_cli.data.avsbench import open_split
from av2tsam_cli.data.cache import EmbeddingCache
from av2tsam_cli.data.samples import Sample, read_sample
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.training.augmentation import Augmentation, draw_augmentation

UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}


@pytest.fixture
def sample(generated: Path, tiny_model: Path, tmp_path: Path) -> Sample:
    network = load_network(tiny_model)
    clip = open_split(generated, "ms3", "train")[0]
    return read_sample(
        clip, network.config, EmbeddingCache.open_or_build(tmp_path, network, [clip]).read
    )


def test_frames_and_masks_are_flipped_together(sample: Sample) -> None:
    flipped = Augmentation(flip=True, **UNCHANGED).apply(sample)
    assert torch.equal(flipped.frames, sample.frames.flip(-1))
    assert torch.equal(flipped.masks, sample.masks.flip(-1))
    same = Augmentation(flip=False, **UNCHANGED).apply(sample)
    assert torch.equal(same.frames, sample.frames)


def test_colours_change_and_masks_do_not(sample: Sample) -> None:
    frames = sample.frames.float()

    def changed(**factor: float) -> torch.Tensor:
        result = Augmentation(flip=False, **{**UNCHANGED, **factor}).apply(sample)
        assert torch.equal(result.masks, sample.masks)
        return result.frames.float()

    assert changed(brightness=0.5) == pytest.approx(frames / 2, abs=0.51)
    assert changed(contrast=0.5).std() < 0.6 * frames.std()
    grey = changed(saturation=0.0)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_changes_depend_on_seed_epoch_and_video_only(generated: Path) -> None:
    one, other = open_split(generated, "s4", "train")
    drawn = draw_augmentation(one, seed=1, epoch=0)
    assert drawn == draw_augmentation(one, seed=1, epoch=0)
    assert drawn != draw_augmentation(other, seed=1, epoch=0)
    assert drawn != draw_augmentation(one, seed=2, epoch=0)
    many = [draw_augmentation(one, seed=1, epoch=epoch) for epoch in range(200)]
    assert np.mean([each.flip for each in many]) == pytest.approx(0.5, abs=0.1)
    assert len({each.brightness for each in many}) == 200
