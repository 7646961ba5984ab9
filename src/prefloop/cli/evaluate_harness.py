"""`prefloop evaluate lm-eval`: lm-evaluation-harness in process, with what its results depend on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.cli.evaluate import number, with_interval
from prefloop.config import is_mapping
from prefloop.errors import DataError
from prefloop.evaluation.harness import HarnessSettings, before_after, run_harness
from prefloop.evaluation.lines import read_json


def _earlier(file: Path) -> Mapping[str, Any]:
    found = read_json(file)
    if not is_mapping(found) or not is_mapping(found.get("results")):
        raise DataError(f"--before {file.name}: is no result of these tasks. Name what --json wrote.")
    return found


def lm_eval_command(model: str, settings: HarnessSettings, before: Path | None) -> dict[str, Any]:
    """Runs the tasks, and says what was lost since an earlier result.

    Raises:
        PrefloopError: of the kind that says how the process should end.
    """
    if settings.folder is not None and not settings.folder.is_dir():
        raise DataError(f"--folder {settings.folder}: there is no such folder. Name one with task files (YAML).")
    earlier = None if before is None else _earlier(before)
    found = json.loads(json.dumps(run_harness(model, settings)))
    _print(found)
    say(found["warnings"])
    if earlier is None:
        return found
    rows = before_after(earlier, found)
    for row in rows:
        flag = "; lost more than two standard errors" if row["lost"] else ""
        shown = with_interval(row["difference"], row["interval"], sign="+", digits=4)
        say([f"{row['task']} {row['metric']}: {shown} after against before{flag}"])
    return {**found, "before_after": rows}


def _print(found: Mapping[str, Any]) -> None:
    """A line a metric."""
    table = Table("task", "metric", "value", "n", "n-shot", box=None)
    for task, metrics in found["results"].items():
        for metric, one in metrics.items():
            shown = with_interval(one["value"], one["interval"], digits=4)
            table.add_row(task, metric, shown, number(one["n"], ",d"), str(found["n-shot"].get(task, "-")))
    output().print(table)
    template = "on" if found["chat_template"] else "off"
    say(
        [
            f"in brackets {found['interval_method']}",
            f"lm-evaluation-harness {found['lm_eval_version']}, chat template {template}",
        ]
    )
