"""AlpacaEval's own length-controlled win rate, of one file: run by `evaluation_speed.py` where alpaca_eval 0.6.6 is.

Its code reads the gamed baselines from a hub; here that download gives the file that is named.
"""

import json
import sys
import time

import pandas as pd  # pyright: ignore[reportMissingImports]
from alpaca_eval.metrics import glm_winrate  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Waits for a line a fit on standard input, and answers with its seconds and its win rates."""
    judged, gamed = sys.argv[1:]
    rows = pd.read_json(judged, lines=True)
    frame = pd.DataFrame(
        {
            "preference": rows["preference"],
            "output_1": ["x" * int(length) for length in rows["len_baseline"]],
            "output_2": ["x" * int(length) for length in rows["len_model"]],
            "generator_1": "baseline",
            "generator_2": "model",
            "annotator": "judge",
        }
    )
    glm_winrate.hf_hub_download = lambda **_options: gamed
    for _ in sys.stdin:
        started = time.perf_counter()
        found = glm_winrate.get_length_controlled_winrate(
            frame.copy(), save_weights_dir=None, is_add_glm_preference_inplace=False
        )
        seconds = time.perf_counter() - started
        said = {"seconds": seconds, "win_rate": found["win_rate"], "lc": found["length_controlled_winrate"]}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
