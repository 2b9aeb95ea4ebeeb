"""Reading media: what a file holds, its frames and its sound on one presentation clock."""
