"""Training on AVSBench and on data sets in its layout."""
