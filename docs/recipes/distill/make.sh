#!/bin/sh
# A small student of 1,500 rows, with and without its teacher, then on its own answers; a thousand fresh problems to each.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
mkdir -p .runs/distill
reason data generate --family words --set steps='[1,2]' --set digits='[1,1]' --set aside=0 --count 1500 --seed 61 \
    --out .runs/distill/rows.jsonl
for part in student alone on-policy; do
    reason train distill --config docs/recipes/distill/$part.yaml
    # a new model has no profile; the teacher's says how a problem is asked
    cp .runs/base/reason.json .runs/distill/$part/
done
for model in .runs/base .runs/distill/student .runs/distill/alone .runs/distill/on-policy; do
    reason eval word-problems:steps=1-2,digits=1 --model $model --strategies chain-of-thought:temperature=0 \
        --max-tokens 60 --threads 1 --out .runs/distill/answers-$(basename $model)
done
