"""`prefloop verify`."""

from pathlib import Path
from typing import Any

OPTIMUM_TOLERANCE = 1e-5
"""Nats: a smooth minimum is found to about the square root of the rounding of its value."""


def verify_command(vectors: Path | None) -> tuple[dict[str, Any], bool]:
    """Runs vector files through the product's functions, prints a line each, and says whether all is well."""
    from prefloop.testing import OPTIMA, FileResult, optimum_error, shipped_vectors, verify_folder

    def line(stem: str, result: FileResult) -> str:
        match result.status:
            case "unknown":
                said = "no function answers for this file"
            case "computed":
                said = f"{len(result.cases)} cases, nothing to compare with"
            case _:
                said = f"{len(result.cases)} cases, largest relative error {result.max_relative_error:.1e}"
        where = f"; differs: {', '.join(result.failed)}" if result.failed else ""
        return f"{stem:<28} {result.status:<9} {said}{where}"

    results = verify_folder(vectors or shipped_vectors())
    for stem, result in results.items():
        print(line(stem, result))
    passed = all(result.status in {"pass", "computed"} for result in results.values())
    written: dict[str, Any] = {
        "files": {
            stem: {"status": result.status, "max_relative_error": result.max_relative_error, "cases": result.cases}
            for stem, result in results.items()
        }
    }
    if vectors is None:
        errors = {name: optimum_error(name) for name in OPTIMA}
        written["worlds"] = {}
        for name, error in errors.items():
            status = "pass" if error <= OPTIMUM_TOLERANCE else "fail"
            written["worlds"][name] = {"status": status, "max_error": error}
            print(f"{'optimum of ' + name:<28} {status:<9} off by at most {error:.1e} nats")
            passed = passed and status == "pass"
    return written, passed
