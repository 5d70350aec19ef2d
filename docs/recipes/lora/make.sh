#!/bin/sh
# A task that the model does not know, learned by all weights and by LoRA; then both asked a thousand fresh questions, and
# LoRA beside its base compared with LoRA merged.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
mkdir -p .runs/units
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
reason data generate --family units --set levels='[1,1]' --set 'kinds=[time]' --count 1200 --seed 1 --out .runs/units/rows.jsonl
for way in full lora; do
    reason train sft --config docs/recipes/lora/$way.yaml
    reason eval units:levels=1,kind=time --model .runs/lora/$way --strategies chain-of-thought:temperature=0 \
        --max-tokens 60 --threads 1 --concurrency 32 --out .runs/lora/$way-answers
done
python3 docs/recipes/lora/served.py .runs/base .runs/lora/lora 200
for way in full lora; do
    grep -E '"(trained|speed|memory|loss)"' .runs/lora/$way/manifest.json
done
