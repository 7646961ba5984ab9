"""Writes the grey curve of the report from a comparison that was measured.

prefloop compare runs/quickstart-* runs/plain-* --json compare.json
python scripts/plain_curve.py compare.json "the command that made the runs"
"""

import json
import sys
from pathlib import Path

from prefloop.config import load_recipe
from prefloop.report.plain import FILE, facts
from prefloop.report.view import Recipe

NAME = "quickstart_plain"
FIGURES = {"judge": "judge", "controlled": "controlled", "truth": "truth", "length_ratio": "length"}


def main(comparison: Path, command: str) -> None:
    """Takes the arm of plain DPO, all of its seeds pooled, round by round."""
    arms = json.loads(comparison.read_text(encoding="utf-8"))["arms"]
    (arm,) = (arm for arm in arms if arm["name"] == NAME)
    rounds = [
        {
            ours: {
                "value": round(measured["measured"][theirs]["value"], 3),
                "interval": [round(end, 3) for end in measured["measured"][theirs]["interval"]],
            }
            for ours, theirs in FIGURES.items()
        }
        for measured in arm["rounds"]
    ]
    curve = {
        "name": NAME,
        "command": command,
        "seeds": sorted({seed for measured in arm["rounds"] for seed in measured["seeds"]}),
        "facts": facts(Recipe.model_validate(load_recipe(NAME).raw)),
        "rounds": rounds,
    }
    FILE.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
