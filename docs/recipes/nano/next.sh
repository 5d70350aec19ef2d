#!/bin/sh
# On top of the bundled weights, which the first three parts made: reinforcement as an adapter, a process and an outcome
# reward model. README.md says what came of it.
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
judged() {
    [ -f ".runs/$1/steps.jsonl" ] || python $here/judged.py ".runs/$1" --generated "$2" --model $nano --problems "$3" --samples 8 --seed "$4"
}
judged nano-judged 4000 4000 29
judged nano-judged-own 0 2500 33
for name in steps own-pairs; do
    cat .runs/nano-judged/$name.jsonl .runs/nano-judged-own/$name.jsonl > .runs/nano-judged/all-$name.jsonl
done
train process-reward 6-process nano-process
train reward 7-outcome nano-outcome

mkdir -p $measured
before=$measured/before.jsonl
[ -s $before ] || python $here/measure.py sample $nano $before --samples 16
python $here/measure.py sample .runs/nano-5 $measured/after.jsonl --samples 1
python $here/measure.py compare $before $measured/after.jsonl
for kind in process outcome; do
    python $here/measure.py score $nano $before $kind=.runs/nano-$kind $measured/$kind.jsonl
done
python $here/measure.py report $before $measured/process.jsonl $measured/outcome.jsonl
