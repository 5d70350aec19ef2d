#!/bin/sh
# Safety by dpo: rows, a model that goes along with everything, the same model after dpo, and both on held-out requests.
set -eu
cd "$(dirname "$0")/../../.."
here=docs/recipes/safety
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
PATH=$PWD/.venv/bin:$PATH
[ -d .runs/base ] || { mkdir -p .runs && cp -r reason_engine/models/nano .runs/base; }
python $here/requests.py .runs/safety
# a part that has ended left a manifest
[ -f .runs/safety/helpful/manifest.json ] || reason train sft --config $here/1-helpful.yaml
[ -f .runs/safety/dpo/manifest.json ] || reason train dpo --config $here/2-dpo.yaml
python $here/measure.py .runs/safety .runs/base .runs/safety/helpful .runs/safety/dpo
