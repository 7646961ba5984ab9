#!/usr/bin/env bash
# Makes build/trl, an environment with TRL that has torch, transformers and peft from .venv, so that both compute with
# the same versions; calling it again is harmless. Prints its interpreter. TRL 1.12 is the last that had PPO: its
# trainer's source lies in build/trl/with_ppo, and is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.16.0
version_with_ppo=1.12.0
target=build/trl
python=$PWD/$target/bin/python

if ! "$python" -c "import trl; assert trl.__version__ == '$version'" 2>/dev/null; then
    .venv/bin/python -m venv --clear "$target"
    "$python" - "$(.venv/bin/python -c 'import json, site, sys; print(json.dumps(site.getsitepackages()))')" <<'PYTHON'
import json, sys, sysconfig
from pathlib import Path
lines = [f"import site; site.addsitedir({folder!r})\n" for folder in json.loads(sys.argv[1])]
Path(sysconfig.get_path("purelib"), "of_prefloop.pth").write_text("".join(lines))
PYTHON
    grep -v '^torch==' constraints.txt >"$target/constraints.txt"  # .venv may have kept another torch
    "$python" -m pip --disable-pip-version-check install -qq -c "$target/constraints.txt" "trl==$version" >&2
fi
if [ ! -d "$target/with_ppo" ]; then
    folder=$(mktemp -d)
    "$python" -m pip --disable-pip-version-check download -q --no-deps --dest "$folder" "trl==$version_with_ppo" >&2
    "$python" -m zipfile -e "$folder"/trl-*.whl "$folder/whole"
    mkdir "$target/with_ppo"
    cp "$folder/whole/trl/experimental/ppo/ppo_trainer.py" "$target/with_ppo/"
    rm -r "$folder"
fi
echo "$python"
