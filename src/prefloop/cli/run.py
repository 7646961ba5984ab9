"""`prefloop run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefloop.config import load_recipe
from prefloop.errors import CheckFailedError


def run_command(
    recipe: str,
    folder: Path | None,
    overrides: Sequence[str],
    until: str | None,
    reuse: Path | None,
    *,
    strict: bool = False,
) -> dict[str, Any]:
    """Runs a recipe and ends with the report."""
    loaded = load_recipe(recipe, overrides)
    from prefloop.cli.plan import print_compared
    from prefloop.cli.report import report_command
    from prefloop.loop import Progress, run_recipe

    run = folder if folder is not None else Path("runs") / loaded.recipe.name
    progress = Progress()
    try:
        result = run_recipe(loaded, run, progress, until=until, reuse=reuse, strict=strict)
    except CheckFailedError:
        if run.is_dir():  # --strict fails before there is anything to report
            report_command(run)
        raise
    if not result.made and not result.copied:
        progress.note(f"{run} is done already: nothing ran.")
    predicted = print_compared(result.compared)
    reported = report_command(run)
    return {"run": str(run), "made": list(result.made), "predicted": predicted, **reported}
