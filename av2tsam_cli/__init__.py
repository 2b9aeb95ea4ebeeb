"""The `av2tsam` command line and its implementation; `import av2tsam` for the public names."""

__version__ = "0.1.0"
