"""Crystalline: trains transformer language models from scratch, and proves its own arithmetic."""

__version__ = "0.1.0"
