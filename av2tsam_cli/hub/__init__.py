"""Published weights: a registry of models, download, conversion, and checkpoint files."""
