"""`prefloop export`: a policy of a run, or any policy, for other tools."""

from pathlib import Path
from typing import Any

from prefloop.cli.console import output
from prefloop.errors import RecipeError
from prefloop.loop.policy_of_run import policy_of_run
from prefloop.policy.exported_policy import ADAPTER_CONFIG, export_policy


def export_command(wanted: Path, out: Path, round_number: int | None, *, merged: bool) -> dict[str, Any]:
    """Writes a policy where other tools load it from.

    Args:
        wanted: a run folder, or the directory of a policy.
        out: the directory to write.
        round_number: of the run whose policy is meant.
        merged: an adapter becomes a whole model.
    """
    directory, base, said = wanted, None, str(wanted)
    if any((wanted / name).is_file() for name in (ADAPTER_CONFIG, "config.json")):
        if round_number is not None:
            raise RecipeError(f"--round {round_number}: {wanted} is a policy, not a run folder. Leave it out.")
    else:
        found = policy_of_run(wanted, round_number)
        directory, base = found.directory, found.model
        said = f"{wanted / found.path}, whose round is {found.decision or 'still open'}"
    written = export_policy(directory, out, merged=merged, base=base)
    of_base = f" of {written.base}" if written.base else ""
    kind = {"adapter": f"an adapter{of_base}", "merged": "a whole model, merged", "full": "a whole model"}[written.kind]
    output().print(f"{out}: {kind}, from {said}", highlight=False, markup=False, soft_wrap=True)
    return {"out": str(out), "kind": written.kind, "base": written.base, "policy": str(directory)}
