"""What proves an installation: published numbers, and tabular worlds whose optimum is known."""

from prefloop.testing.completions_server import CompletionsServer, Faults
from prefloop.testing.optimum import OPTIMA, TabularWorld, minimise, optimum_error
from prefloop.testing.vectors import FileResult, shipped_vectors, verify_file, verify_folder

__all__ = [
    "OPTIMA",
    "CompletionsServer",
    "Faults",
    "FileResult",
    "TabularWorld",
    "minimise",
    "optimum_error",
    "shipped_vectors",
    "verify_file",
    "verify_folder",
]
