#!/bin/sh
# A reward model for units of time: pairs of samples of docs/recipes/rlhf's first model, learned from by the model of
# docs/recipes/lora; then the best of 16 by it against the vote of 16, on a thousand problems.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
PATH=$PWD/.venv/bin:$PATH
for needed in lora/full rlhf/sft; do
    [ -d .runs/$needed ] || { echo "run docs/recipes/${needed%/*}/make.sh first" >&2; exit 2; }
done
pairs=docs/recipes/rlhf/pairs.py
measure=docs/recipes/nano/measure.py
here=.runs/reward
mkdir -p $here
[ -s $here/pairs.jsonl ] ||
    python $pairs .runs/rlhf/sft $here/pairs.jsonl --prompts 3000 --samples 8 --each 3 --seed 11
[ -s $here/held-out.jsonl ] || python $pairs .runs/rlhf/sft $here/held-out.jsonl --prompts 400 --seed 12
[ -f $here/model/manifest.json ] || reason train reward --config docs/recipes/reward/reward.yaml
[ -s $here/samples.jsonl ] || python $measure sample .runs/rlhf/sft $here/samples.jsonl --units
python $measure score .runs/rlhf/sft $here/samples.jsonl reward=$here/model $here/reward.jsonl
python $measure report $here/samples.jsonl $here/reward.jsonl
