"""Importing other people's packages without their warnings and without what their import runs."""

import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

# What the packages say about themselves when they are imported; nobody who uses us can act on it.
IMPORT_WARNINGS = (DeprecationWarning, FutureWarning, UserWarning, SyntaxWarning)

# Both laion_clap and open_clip import one class of torchvision, whose `__init__` takes seconds.
FROZEN_NORM = "torchvision.ops.misc"


@contextmanager
def off_meta() -> Iterator[None]:
    """Build on the CPU what cannot be built on the meta device."""
    if torch.get_default_device().type != "meta":
        yield
        return
    with torch.device("cpu"):
        yield


def import_quietly(name: str) -> ModuleType:
    """Import a module, silencing its import-time deprecations and notices, and only those."""
    with warnings.catch_warnings():
        for category in IMPORT_WARNINGS:
            warnings.simplefilter("ignore", category)
        return importlib.import_module(name)


def import_without_init(name: str) -> ModuleType:
    """Import a submodule without running the `__init__` of the packages above it.

    laion_clap's `__init__` parses `sys.argv` (1.1.5, 1.1.6) or downloads tokenizers (1.1.7); its
    network needs neither. Bare package objects with the right `__path__` stand in for the real
    ones while the submodule is imported, and are taken away again afterwards.

    Args:
        name: Dotted name of the submodule.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    if name != FROZEN_NORM:
        import_without_init(FROZEN_NORM)
    parents = [name.rsplit(".", depth)[0] for depth in range(name.count("."), 0, -1)]
    bare = [parent for parent in parents if parent not in sys.modules]
    try:
        for parent in bare:
            sys.modules[parent] = _bare_package(parent)
        return import_quietly(name)
    finally:
        for parent in bare:
            sys.modules.pop(parent, None)


def _bare_package(name: str) -> ModuleType:
    """An empty package object that knows where its submodules lie."""
    above, _, last = name.rpartition(".")
    path = list(sys.modules[above].__path__) if above else None
    spec = importlib.machinery.PathFinder.find_spec(name if not above else last, path)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    return package
