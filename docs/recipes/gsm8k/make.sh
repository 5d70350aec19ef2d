#!/bin/sh
# A method of training on real data, for a chat model of one's own.
# Usage: make.sh MODEL_FOLDER DATA [METHOD]     DATA: a folder with gsm8k/train.jsonl, or hub; METHOD: sft (as it stands)
set -eu
model=$(cd "$1" && pwd) data=$2 method=${3:-sft}
[ "$data" = hub ] || data=$(cd "$data" && pwd)
cd "$(dirname "$0")/../../.."
PATH=$PWD/.venv/bin:$PATH
here=.runs/gsm8k
case $method in
sft | grpo) rows=answers command=$method ;;
reward | dpo) rows=preference command=$method ;;
process) rows=steps command=process-reward ;;
*) echo "make.sh: $method: one of sft, grpo, reward, dpo, process" >&2; exit 2 ;;
esac
mkdir -p $here
[ -s $here/$rows/train.jsonl ] || python docs/recipes/gsm8k/rows.py $rows "$data" $here/$rows
reason train $command --config docs/recipes/gsm8k/$method.yaml --set model="$model"
reason train show $here/$method
