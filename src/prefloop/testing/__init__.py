"""What proves an installation: published numbers against the product's own functions, and a server to test with."""

from prefloop.testing.completions_server import FAULTS, REFUSALS, CompletionsServer, Faults
from prefloop.testing.vectors import FileResult, shipped_vectors, verify_file, verify_folder

__all__ = [
    "FAULTS",
    "REFUSALS",
    "CompletionsServer",
    "Faults",
    "FileResult",
    "shipped_vectors",
    "verify_file",
    "verify_folder",
]
