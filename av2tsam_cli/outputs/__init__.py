"""Writing results: overlay videos with the original sound, mask and overlay pictures."""
