#!/bin/sh
# A step model from SmolLM2-135M-Instruct and GSM8K's training problems, then best-of-n and a beam by it.
# Usage: make.sh SMOLLM2_FOLDER GSM8K_TRAIN_JSONL
set -eu
model=$(cd "$1" && pwd) train=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
cd "$(dirname "$0")/../../.."
PATH=$PWD/.venv/bin:$PATH
here=.runs/steps
mkdir -p $here
[ -s $here/train.jsonl ] || python docs/recipes/steps/steps.py "$train" $here
[ -f $here/model/manifest.json ] ||
    reason train process-reward --config docs/recipes/steps/steps.yaml --set model="$model"
export REASON_REWARD_MODELS="{\"steps\": \"$here/model\"}"
question="Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did \
Natalia sell altogether in April and May?"
for strategy in best-of-n beam-search; do
    reason solve "$question" --model "$model" --engine embedded --strategy $strategy --set n=4 --set verifier=steps
done
