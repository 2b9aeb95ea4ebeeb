"""What happens over time: which frames get a mask of their own, and motion between them."""
