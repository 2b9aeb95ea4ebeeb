"""Writers of results: overlay videos with the original audio, mask PNGs and overlay PNGs."""
