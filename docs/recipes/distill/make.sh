#!/bin/sh
# A small student with a teacher and without one: 1,500 problems are labelled, 30,000 are not, and the teacher answers those.
# Then a thousand fresh problems to each. `sh docs/recipes/distill/make.sh on-policy` goes on with answers of its own.
set -eu
cd "$(dirname "$0")/../../.."
here=docs/recipes/distill
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
PATH=$PWD/.venv/bin:$PATH
mkdir -p .runs/distill
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
problems() {
    reason data generate --family words --set steps='[1,1]' --set digits='[1,1]' --set aside=0 --count "$1" --seed "$2" --out "$3"
}
[ -s .runs/distill/rows.jsonl ] || problems 1500 61 .runs/distill/rows.jsonl
[ -s .runs/distill/problems.jsonl ] || problems 30000 63 .runs/distill/problems.jsonl
[ -s .runs/distill/answered.jsonl ] || {
    python $here/answers.py .runs/base .runs/distill/problems.jsonl .runs/distill/answered.jsonl
    python $here/answers.py --labelled .runs/distill/rows.jsonl >> .runs/distill/answered.jsonl
}
models=.runs/base
for part in student alone "$@"; do
    [ -f .runs/distill/$part/manifest.json ] || reason train distill --config $here/$part.yaml
    # a new model has no profile; the teacher's says how a problem is asked
    cp .runs/base/reason.json .runs/distill/$part/
    models="$models .runs/distill/$part"
done
for model in $models; do
    reason eval word-problems:steps=1-1,digits=1 --model $model --strategies chain-of-thought:temperature=0 \
        --max-tokens 60 --threads 1 --concurrency 32 --limit 1000 --out .runs/distill/answers-$(basename $model)
done
