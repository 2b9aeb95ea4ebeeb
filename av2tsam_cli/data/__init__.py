"""AVSBench and data sets in its layout: reading, checking, cached embeddings."""
