"""`prefloop objectives`."""

from typing import Any

from rich.table import Table

from prefloop.cli.console import output


def objectives_command(name: str | None) -> dict[str, Any] | list[dict[str, Any]]:
    """Prints all objectives, a line each, or everything about one.

    Raises:
        RecipeError: there is no objective of this name.
    """
    from prefloop.objectives import facts, find_objective, objectives

    if name is None:
        found = [facts(one) for _, one in sorted(objectives().items())]
        table = Table("name", "what it is", "reads", "trained", box=None, pad_edge=False)
        for one in found:
            table.add_row(one["name"], one["summary"], _reads(one), "no" if one["not_trained"] else "yes")
        output().print(table)
        return found
    one = find_objective(name, "the objective")
    _print_one(facts(one))
    return facts(one)


def _reads(one: dict[str, Any]) -> str:
    """Models and numbers beside the policy, in short."""
    models = dict.fromkeys(quantity["computed_by"] for quantity in one["quantities"])
    return ", ".join(model for model in models if model not in {"policy", "data"}) or "-"


def _print_one(one: dict[str, Any]) -> None:
    from prefloop.objectives import behaviour, find_objective

    print(f"{one['name']}: {one['summary']}")
    also = f"; also called {', '.join(one['aliases'])}" if one["aliases"] else ""
    print(f"{one['source']}{also}\n\n{one['formula']}\n\nLimits: {one['limits']}\n")
    quantities = Table("quantity", "what it is", "shape", "unit", box=None, pad_edge=False)
    for quantity in one["quantities"]:
        quantities.add_row(quantity["name"], quantity["meaning"], f"[{quantity['shape']}]", quantity["unit"])
    console = output()
    for table in (quantities, _parameters(one), _elsewhere(one)):
        if table.row_count:
            console.print(table, markup=False)
            print()
    for sentence in behaviour(find_objective(one["name"], "the objective")):
        print(sentence)


def _parameters(one: dict[str, Any]) -> Table:
    table = Table("hyper-parameter", "what it is", "range", "default", box=None, pad_edge=False)
    for parameter in one["parameters"]:
        default = "-" if parameter["default"] is None else str(parameter["default"])
        table.add_row(parameter["name"], parameter["meaning"], parameter["range"], default)
    return table


def _elsewhere(one: dict[str, Any]) -> Table:
    table = Table("in", "it is called", "ours -> theirs", "differs", box=None, pad_edge=False)
    for there in one["elsewhere"]:
        table.add_row(there["tool"], there["name"], there["translated"] or "-", there["note"] or "-")
    return table
