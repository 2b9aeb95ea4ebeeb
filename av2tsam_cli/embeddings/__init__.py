"""Frozen encoders: CLIP for frames, CLAP for audio windows."""
