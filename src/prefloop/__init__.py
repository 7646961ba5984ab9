"""prefloop: align open-weight language models with preferences, and prove that it worked."""

__version__ = "0.1.0"
