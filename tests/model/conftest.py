"""Tiny networks with SAM 1 or SAM 2."""

import dataclasses

import pytest
import torch

from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import ModelConfig

from ..tiny import TINY, TINY_SAM, TINY_SAM2, shake


@pytest.fixture(params=[TINY_SAM, TINY_SAM2], ids=["sam", "sam2"])
def tiny_config(request: pytest.FixtureRequest) -> ModelConfig:
    return dataclasses.replace(TINY, sam=request.param)


@pytest.fixture
def tiny_network(tiny_config: ModelConfig) -> Av2tSam:
    torch.manual_seed(0)
    model = build(tiny_config).eval()
    shake(model)
    return model
