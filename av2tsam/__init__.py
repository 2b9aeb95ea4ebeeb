"""Find and cut out what is making the sound in a video.

This package holds the public names; the code is in `av2tsam_cli`. Importing it is quick: PyTorch is
imported when a function or class that needs it is used for the first time.

    import av2tsam

    model = av2tsam.load_model("nano")
    result = av2tsam.segment_video("clip.mp4", "overlay.mp4", model=model)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from av2tsam_cli import __version__ as __version__

if TYPE_CHECKING:
    from av2tsam_cli.cluster.dataset import segment_dataset as segment_dataset
    from av2tsam_cli.errors import Av2tsamError as Av2tsamError
    from av2tsam_cli.errors import MediaError as MediaError
    from av2tsam_cli.errors import UsageError as UsageError
    from av2tsam_cli.errors import WeightsError as WeightsError
    from av2tsam_cli.inference.loading import LoadedModel as LoadedModel
    from av2tsam_cli.inference.loading import load_model as load_model
    from av2tsam_cli.pipeline import SegmentResult as SegmentResult
    from av2tsam_cli.pipeline import iter_masks as iter_masks
    from av2tsam_cli.pipeline import segment_frames as segment_frames
    from av2tsam_cli.pipeline import segment_video as segment_video
    from av2tsam_cli.process import tune_process as tune_process
    from av2tsam_cli.values import MaskedFrame as MaskedFrame
    from av2tsam_cli.values import SoundEvent as SoundEvent
    from av2tsam_cli.words.listen import Listening as Listening
    from av2tsam_cli.words.listen import listen as listen

_MODULES = {
    "Av2tsamError": "errors",
    "Listening": "words.listen",
    "LoadedModel": "inference.loading",
    "MaskedFrame": "values",
    "MediaError": "errors",
    "SegmentResult": "pipeline",
    "SoundEvent": "values",
    "UsageError": "errors",
    "WeightsError": "errors",
    "iter_masks": "pipeline",
    "listen": "words.listen",
    "load_model": "inference.loading",
    "segment_dataset": "cluster.dataset",
    "segment_frames": "pipeline",
    "segment_video": "pipeline",
    "tune_process": "process",
}
"""Public names and the modules of `av2tsam_cli` that define them."""

__all__ = [
    "Av2tsamError",
    "Listening",
    "LoadedModel",
    "MaskedFrame",
    "MediaError",
    "SegmentResult",
    "SoundEvent",
    "UsageError",
    "WeightsError",
    "__version__",
    "iter_masks",
    "listen",
    "load_model",
    "segment_dataset",
    "segment_frames",
    "segment_video",
    "tune_process",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"av2tsam_cli.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
