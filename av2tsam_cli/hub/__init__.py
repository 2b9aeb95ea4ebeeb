"""Published weights: where they are, fetching, converting, storing."""
