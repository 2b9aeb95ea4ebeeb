"""Find and cut out what in a video is making the sound."""

__version__ = "0.1.0"
