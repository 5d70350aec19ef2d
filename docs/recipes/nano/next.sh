#!/bin/sh
# The next reason-nano, in work: three skills, reinforcement, a process reward model. README.md says how far it is.
# Begins from the bundled weights, which the first three parts made.
set -eu
cd "$(dirname "$0")/../../.."
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456

# train METHOD FILE FOLDER: a part that has ended left a manifest
train() {
    [ -f ".runs/$3/manifest.json" ] || reason train "$1" --config "docs/recipes/nano/$2.yaml"
}

train sft 4-skills nano-4
train grpo 5-grpo nano-5
[ -f .runs/nano-judged/steps.jsonl ] || python docs/recipes/nano/judged.py .runs/nano-judged
train process-reward 6-process nano-process
train reward 7-outcome nano-outcome

measured=.runs/nano-measured
mkdir -p $measured
python docs/recipes/nano/measure.py sample .runs/nano-4 $measured/before.jsonl --samples 1
python docs/recipes/nano/measure.py sample .runs/nano-5/at-30 $measured/after.jsonl --samples 1
python docs/recipes/nano/measure.py compare $measured/before.jsonl $measured/after.jsonl
