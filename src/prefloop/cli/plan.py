"""`prefloop plan`, and what `prefloop run` ends with: what was predicted beside what came out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich import box
from rich.table import Table

from prefloop.cli.console import output
from prefloop.config import load_recipe

COLUMNS = ("prompts", "answers", "tokens", "judge_calls", "pairs", "optimiser_steps")
BOUNDS = {"tokens", "pairs", "optimiser_steps"}
"""Known before only as the most that they can be; the others are known exactly."""
HEADINGS = {"memory": "peak memory"}
STATES = {"kept": "done", "found": "done", "again": "again", "new": ""}


def plan_command(recipe: str, folder: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Says what a run would do and need."""
    loaded = load_recipe(recipe, overrides)
    from transformers.utils import logging as transformers_logging

    from prefloop.loop import Plan, plan_recipe

    transformers_logging.disable_progress_bar()
    run = folder if folder is not None else Path("runs") / loaded.recipe.name
    plan = plan_recipe(loaded, run)
    console = output()
    done = sum(STATES[step.status] == "done" for step in plan.steps)
    console.print(
        f"{plan.recipe} in {plan.run}: {len(plan.steps)} steps, {done} of them done; model {plan.model}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_steps(plan))
    price = sum(step.price or 0.0 for step in plan.steps)
    paid = sum(step.price or 0.0 for step in plan.steps if STATES[step.status] == "done")
    console.print(
        f"price of the judge calls: ${price:.2f}{f', ${paid:.2f} of it paid' if paid else ''}", highlight=False
    )
    if plan.precision is not None:
        console.print(f"sampling in {plan.precision}", highlight=False, soft_wrap=True)
    console.print(_needs(plan))
    for unknown in plan.unknown:
        console.print(f"not known: {unknown}", highlight=False, markup=False, soft_wrap=True)
    return TypeAdapter(Plan).dump_python(plan, mode="json")


def print_compared(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Prints predictions beside what came out, and returns them for `--json`."""
    from prefloop.loop import Compared

    compared: Sequence[Compared] = rows
    if compared:
        table = _table("predicted", "at most", "expected", "it was")
        for row in compared:
            shown = bytes_of if row.name in {"memory", "disk"} else "{:,}".format
            expected = "" if not row.expected else shown(row.expected)
            if row.actual_of_expected is not None and row.expected and row.actual_of_expected != row.actual:
                expected += f", where {shown(row.actual_of_expected)} came"
            at_most = "" if row.at_most is None else shown(row.at_most)
            table.add_row(_heading(row.name), at_most, expected, shown(row.actual))
        output().print(table)
    return TypeAdapter(list[Compared]).dump_python(list(compared), mode="json")


def bytes_of(number: int) -> str:
    """Bytes as people read them."""
    from prefloop.loop import in_bytes

    return in_bytes(number).replace(" ", "\N{NO-BREAK SPACE}")


def _steps(plan: Any) -> Table:
    table = _table("step", *(_heading(name) for name in COLUMNS), "memory", "", right=len(COLUMNS) + 1)
    for step in plan.steps:
        cells = (_amount(name, step.at_most, step.expected, step.actual) for name in COLUMNS)
        memory = "" if step.memory is None else bytes_of(step.memory)
        table.add_row(step.path, *cells, memory, STATES[step.status])
    totals = (_total(name, plan.steps) for name in COLUMNS)
    table.add_section()
    table.add_row("in all", *totals)
    return table


def _amount(name: str, at_most: Any, expected: Any, actual: Any) -> str:
    """`7,106` when it is done; `~7,106` where something was measured before; `≤18,432` where nothing was."""
    if name in actual:
        return f"{actual[name]:,}"
    if name in expected and (name in BOUNDS or expected[name] != at_most.get(name)):
        return f"~{expected[name]:,}"
    if name not in at_most:
        return ""
    return f"≤{at_most[name]:,}" if name in BOUNDS else f"{at_most[name]:,}"


def _total(name: str, steps: Sequence[Any]) -> str:
    if name == "prompts":
        return ""
    known = [{**step.at_most, **step.expected, **step.actual}.get(name, 0) for step in steps]
    is_bound = any(name in step.at_most and name not in {**step.expected, **step.actual} for step in steps)
    return f"{'≤' if is_bound else ''}{sum(known):,}" if sum(known) else ""


def _needs(plan: Any) -> Table:
    there = "" if plan.available is None else f" ({bytes_of(plan.available)} are there)"
    table = _table(f"memory{there}", "", "", right=1)
    for need in plan.needs:
        table.add_row(f"{need.work}", bytes_of(need.bytes), need.shape)
        for name, size, formula in _parts(need.parts):
            table.add_row(f"  {name}", size, formula)
    if plan.disk:
        table.add_section()
        table.add_row("disk", bytes_of(sum(part.bytes for part in plan.disk)), "")
        for name, size, formula in _parts(plan.disk):
            table.add_row(f"  {name}", size, formula)
    return table


def _parts(parts: Sequence[Any]) -> Iterator[tuple[str, str, str]]:
    for part in parts:
        yield part.name, bytes_of(part.bytes), part.formula


def _table(*headings: str, right: int = 3) -> Table:
    """A plain table whose columns after the first are numbers, `right` of them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < number <= right else "left", overflow="fold")
    return table


def _heading(name: str) -> str:
    return HEADINGS.get(name, name.replace("_", " "))
