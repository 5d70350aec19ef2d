#!/bin/sh
# A task that the model does not know, learned by all weights and by LoRA; then both asked a thousand fresh questions.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
mkdir -p .runs/units
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
reason data generate --family units --set levels='[1,1]' --set 'kinds=[time]' --count 1200 --seed 1 --out .runs/units/rows.jsonl
for way in full lora; do
    reason train sft --config docs/recipes/lora/$way.yaml
    reason eval units:levels=1,kind=time --model .runs/lora/$way --strategies chain-of-thought --max-tokens 60 --threads 1 \
        --out .runs/lora/$way-answers
done
