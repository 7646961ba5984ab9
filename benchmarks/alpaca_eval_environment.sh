#!/usr/bin/env bash
# Makes build/alpaca_eval, an environment with AlpacaEval's own tool; calling it again is harmless. Prints its
# interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.6.6
target=build/alpaca_eval
python=$PWD/$target/bin/python

if ! "$python" -c "from importlib.metadata import version; assert version('alpaca_eval') == '$version'" 2>/dev/null; then
    .venv/bin/python -m venv --clear "$target"
    # its code names the L1 penalty as scikit-learn does until 1.10
    "$python" -m pip --disable-pip-version-check install -qq "alpaca_eval==$version" "scikit-learn<1.10" >&2
fi
echo "$python"
