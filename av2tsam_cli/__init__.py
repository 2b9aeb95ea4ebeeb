"""Find and cut out what in a video is making the sound."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import load_model as load_model
    from av2tsam_cli.pipeline import segment_video as segment_video

__version__ = "0.1.0"
__all__ = ["__version__", "load_model", "segment_video"]


def __getattr__(name: str) -> object:
    """Import a public name on first use, because importing torch takes seconds (PEP 562)."""
    if name == "segment_video":
        from av2tsam_cli.pipeline import segment_video

        return segment_video
    if name == "load_model":
        from av2tsam_cli.inference.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
