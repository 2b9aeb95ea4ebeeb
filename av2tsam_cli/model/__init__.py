"""The network: a projector from sound and sight to text space, and a text-prompted SAM."""
