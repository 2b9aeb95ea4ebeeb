"""The command line `av2tsam` and the code behind it; `import av2tsam` has the public names."""

__version__ = "0.1.0"
