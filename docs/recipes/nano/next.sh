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
for part in nano-4 nano-5; do
    python docs/recipes/nano/measure.py sample ".runs/$part" "$measured/$part.jsonl" --samples 1
done
python docs/recipes/nano/measure.py compare $measured/nano-4.jsonl $measured/nano-5.jsonl
