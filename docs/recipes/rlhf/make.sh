#!/bin/sh
# sft -> reward -> ppo, sft -> dpo and kto on the same pairs, sft -> grpo, rloo, online-dpo; then all on held-out problems.
# sh docs/recipes/rlhf/make.sh [ppo dpo grpo ...]      (as left out: ppo dpo grpo)
set -eu
cd "$(dirname "$0")/../../.."
here=docs/recipes/rlhf
ways=${*:-ppo dpo grpo}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
PATH=$PWD/.venv/bin:$PATH
mkdir -p .runs/rlhf
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
# a part that has ended left a manifest
[ -f .runs/rlhf/sft/manifest.json ] || reason train sft --config $here/1-sft.yaml
[ -s .runs/rlhf/pairs.jsonl ] || python $here/pairs.py .runs/rlhf/sft .runs/rlhf/pairs.jsonl --seed 1
[ -s .runs/rlhf/pairs-held.jsonl ] ||
    python $here/pairs.py .runs/rlhf/sft .runs/rlhf/pairs-held.jsonl --seed 2 --prompts 300
[ -f .runs/rlhf/reward/manifest.json ] || reason train reward --config $here/2-reward.yaml
made=
for way in $ways; do
    [ -f .runs/rlhf/$way/manifest.json ] || reason train "$way" --config "$here/3-$way.yaml"
    made="$made .runs/rlhf/$way"
done
# shellcheck disable=SC2086
python $here/held_out.py .runs/rlhf/sft $made --reward .runs/rlhf/reward
