#!/bin/sh
# Domain adaptation from raw rows to the report, which stands in .runs/domain/report.md.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
mkdir -p .runs/old
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
python3 docs/recipes/domain/rows.py .runs/domain
old() { reason data generate --config docs/recipes/nano/3-polish.yaml "$@"; }
old --count 256 --seed 72 --out .runs/old/rows.jsonl
old --count 300 --seed 73 --out .runs/old/development.jsonl
reason data check .runs/domain/rows.jsonl
reason adapt --config docs/recipes/domain/adapt.yaml
