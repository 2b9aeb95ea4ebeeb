"""Frozen towers: what a frame looks like (CLIP) and what a second sounds like (CLAP)."""
