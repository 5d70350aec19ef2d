#!/bin/sh
# On top of the bundled weights, which the first three parts made: reinforcement as an adapter, and a process reward
# model. README.md says what came of it.
set -eu
cd "$(dirname "$0")/../../.."
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
here=docs/recipes/nano
nano=reason_engine/models/nano
measured=.runs/nano-measured

# train METHOD FILE FOLDER: a part that has ended left a manifest
train() {
    [ -f ".runs/$3/manifest.json" ] || reason train "$1" --config "$here/$2.yaml"
}

train grpo 5-grpo nano-5
python $here/adapter.py $nano .runs/nano-5 .runs/nano-adapter
[ -f .runs/nano-judged/steps.jsonl ] ||
    python $here/judged.py .runs/nano-judged --generated 20000 --model $nano --problems 4000 --samples 8
train process-reward 6-process nano-process

mkdir -p $measured
python $here/measure.py sample $nano $measured/before.jsonl --samples 16
python $here/measure.py sample .runs/nano-5 $measured/after.jsonl --samples 1
python $here/measure.py compare $measured/before.jsonl $measured/after.jsonl
python $here/measure.py score $nano $measured/before.jsonl process=.runs/nano-process $measured/process.jsonl
python $here/measure.py report $measured/before.jsonl $measured/process.jsonl
