"""Names for what is heard and seen, without audio-visual training."""
