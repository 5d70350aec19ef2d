#!/bin/sh
# The same rows with and without elastic weight consolidation, then a thousand fresh questions to each.
# LAMBDAS="0.1 0.3 1 3" sh docs/recipes/ewc/make.sh runs several; choose by the development files of both tasks.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
mkdir -p .runs/units .runs/old
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
units() { reason data generate --family units --set levels='[1,1]' --set 'kinds=[time]' "$@"; }
units --count 1200 --seed 1 --out .runs/units/rows.jsonl
units --set held_out=true --count 200 --seed 2 --out .runs/units/development.jsonl
units --set held_out=true --count 500 --seed 5 --out .runs/units/held-out.jsonl
old() { reason data generate --config docs/recipes/nano/3-polish.yaml "$@"; }
old --count 256 --seed 72 --out .runs/old/rows.jsonl
old --count 300 --seed 73 --out .runs/old/development.jsonl
old --count 500 --seed 74 --out .runs/old/held-out.jsonl
reason adapt --config docs/recipes/ewc/plain.yaml
for strength in ${LAMBDAS:-0.1}; do
    reason adapt --config docs/recipes/ewc/ewc.yaml --set train.ewc=$strength --set out=.runs/ewc/held-$strength
done
for run in .runs/ewc/*/; do
    reason eval units:levels=1,kind=time --model "${run}model" --strategies chain-of-thought:temperature=0 \
        --max-tokens 60 --threads 1 --out "${run}units"
done
