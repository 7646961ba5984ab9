"""`prefloop verify`."""

from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any


def verify_command(vectors: Path | None) -> tuple[dict[str, Any], bool]:
    """Runs vector files through the product's functions, prints a line each, and says whether all is well.

    Without a folder these are the shipped ones, and what is claimed of methods in tabular worlds follows, a line each.
    """
    from prefloop.testing import FileResult, shipped_vectors, verify_folder

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
        written["worlds"] = _worlds()
        passed = passed and all(found["status"] == "pass" for found in written["worlds"].values())
    return written, passed


def _worlds() -> dict[str, dict[str, Any]]:
    """What is claimed of each method, measured; prints a line a method."""
    from prefloop.worlds import claims

    by_method: dict[str, dict[str, Any]] = {}
    for method, of_method in groupby(claims().values(), key=lambda claim: claim.method):
        measured = [(claim, claim.measured()) for claim in of_method]
        failed = [claim.name for claim, error in measured if not claim.holds(error)]
        errors = [error for _, error in measured]
        largest = max(errors) if all(map(isfinite, errors)) else None
        by_method[method] = {
            "status": "fail" if failed else "pass",
            "max_error": largest,
            "claims": {
                claim.name: {
                    "status": "pass" if claim.holds(error) else "fail",
                    "says": claim.says,
                    "source": claim.source,
                    "error": error if isfinite(error) else None,
                    "within": claim.within,
                }
                for claim, error in measured
            },
        }
        far = "infinitely far" if largest is None else f"{largest:.1e} {measured[0][0].unit}".rstrip()
        where = f"; fails: {', '.join(failed)}" if failed else ""
        status = by_method[method]["status"]
        print(f"{method:<28} {status:<9} claims in worlds: {len(measured)}, off by at most {far}{where}")
    return by_method
