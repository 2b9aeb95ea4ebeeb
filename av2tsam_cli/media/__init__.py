"""Read media files: their properties, and frames and audio on one presentation clock."""
