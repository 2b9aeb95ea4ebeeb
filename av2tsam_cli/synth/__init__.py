"""Audio-visual scenes with exact masks: drawn objects, synthesised sounds, AVSBench's layout."""
