"""Borrow single modules from other packages without importing the packages.

laion_clap's `__init__` parses `sys.argv` (1.1.5, 1.1.6) or downloads tokenizers (1.1.7), and those
of open_clip and segment_anything import all of torchvision, which takes seconds. The few modules
with network classes need none of this. They are executed under private names, so the packages
themselves are not affected, whether the process imports them before, later or not at all.
"""

import builtins
import importlib.util
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import nn

from av2tsam_cli.embeddings.spectrogram import LogMel, PowerSpectrogram

PRIVATE = f"{__package__}._borrowed"
"""Prefix of the names of borrowed modules in `sys.modules`."""

SUBSTITUTES: dict[str, Any] = {
    # Only used to read laion_clap's data sets.
    "h5py": SimpleNamespace(),
    # Imports librosa, scipy and numba, and computes filters that a checkpoint then overwrites.
    "torchlibrosa.stft": SimpleNamespace(Spectrogram=PowerSpectrogram, LogmelFilterBank=LogMel),
    # Only used in training, which is without augmentation here.
    "torchlibrosa.augmentation": SimpleNamespace(SpecAugmentation=nn.Identity),
    # Only used to freeze a network, which is done in other ways here.
    "torchvision.ops.misc": SimpleNamespace(FrozenBatchNorm2d=None),
}
"""What borrowed modules get instead of some of the modules that they import."""

_lock = threading.RLock()


def borrow(name: str) -> ModuleType:
    """Return a private copy of a module, without executing the `__init__` of its package.

    Args:
        name: Full name, such as `open_clip.transformer`.

    Raises:
        ModuleNotFoundError: The package is not installed or has no such module.
    """
    private_name = f"{PRIVATE}.{name}"
    with _lock:
        if private_name not in sys.modules:
            _execute(name, private_name)
        return sys.modules[private_name]


def _execute(name: str, private_name: str) -> None:
    path = _find_file(name)
    spec = importlib.util.spec_from_file_location(private_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not Python source", name=name, path=path)
    module = importlib.util.module_from_spec(spec)
    # An import statement calls `__import__` from the built-in names of its module.
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
    sys.modules[private_name] = module
    try:
        with warnings.catch_warnings():  # about the package's own code
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private_name]
        raise


def _find_file(name: str) -> str:
    package, *path = name.split(".")
    spec = importlib.util.find_spec(package)  # does not import a top-level package
    for part in path:
        folders = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(part, folders) if folders else None
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec.origin


def _import(
    name: str,
    variables: Mapping[str, Any] | None = None,
    local_variables: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """Import on behalf of a borrowed module: relative imports are borrowed as well.

    Supports `from .module import name`, not `from . import module`.
    """
    if level > 0:
        package = (variables or {})["__package__"].removeprefix(f"{PRIVATE}.")
        return borrow(importlib.util.resolve_name("." * level + name, package))
    if name in SUBSTITUTES:
        return SUBSTITUTES[name]
    return builtins.__import__(name, variables, local_variables, names or (), level)
