#!/bin/sh
# A reward model for units of time: pairs of samples of docs/recipes/rlhf's first model, learned from beside that model; then
# the best of 16 by it against the vote of 16, on a thousand problems.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
PATH=$PWD/.venv/bin:$PATH
[ -d .runs/rlhf/sft ] || { echo "run docs/recipes/rlhf/make.sh first" >&2; exit 2; }
pairs=docs/recipes/rlhf/pairs.py
measure=docs/recipes/nano/measure.py
here=.runs/reward
mkdir -p $here
[ -s $here/pairs.jsonl ] || {
    python $pairs .runs/rlhf/sft $here/pairs-1.jsonl --prompts 9000 --samples 8 --each 3 --seed 21
    python $pairs .runs/rlhf/sft $here/pairs-2.jsonl --prompts 3000 --samples 8 --each 3 --seed 11
    cat $here/pairs-1.jsonl $here/pairs-2.jsonl > $here/pairs.jsonl
}
[ -s $here/held-out.jsonl ] ||
    python $pairs .runs/rlhf/sft $here/held-out.jsonl --prompts 1200 --seed 12 --without $here/pairs.jsonl
[ -f $here/model/manifest.json ] || reason train reward --config docs/recipes/reward/reward.yaml
[ -f $here/again/manifest.json ] || reason train reward --config docs/recipes/reward/again.yaml
[ -s $here/samples.jsonl ] || python $measure sample .runs/rlhf/sft $here/samples.jsonl --units
python $measure score .runs/rlhf/sft $here/samples.jsonl reward=$here/again $here/reward.jsonl
python $measure report $here/samples.jsonl $here/reward.jsonl
