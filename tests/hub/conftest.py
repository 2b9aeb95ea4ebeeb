"""Reuse the tiny networks of the model tests."""

from ..model.conftest import tiny_config as tiny_config
from ..model.conftest import tiny_network as tiny_network
