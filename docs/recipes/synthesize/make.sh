#!/bin/sh
# 300 labelled rows against 90 of them and what a teacher makes of 700 other questions, whose answers it is not told: it
# solves each up to six times, and two solutions are kept where at least 60 % of them agree. Then both students are
# asked a thousand fresh questions. The teacher is the model of docs/recipes/lora, behind `reason serve`.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1
here=.runs/synthesize
[ -d .runs/lora/full ] || { echo "run docs/recipes/lora/make.sh first: its model is the teacher" >&2; exit 2; }
[ -d .runs/base ] || cp -r reason_engine/models/nano .runs/base
mkdir -p $here
reason data generate --family units --set levels='[1,1]' --set 'kinds=[time]' --count 300 --seed 31 --out $here/all.jsonl
head -n 90 $here/all.jsonl > $here/labelled.jsonl
reason data generate --family units --set levels='[1,1]' --set 'kinds=[time]' --count 700 --seed 32 --out $here/more.jsonl
python3 -c '
import json, sys
for line in sys.stdin:
    asked = json.loads(line)["messages"][0]["content"]
    print(json.dumps({"prompt": asked}))' < $here/more.jsonl > $here/questions.jsonl
reason serve .runs/lora/full --port 8765 --threads 1 > $here/serve.log 2>&1 &
server=$!
trap 'kill $server' EXIT
until curl -sf http://127.0.0.1:8765/health > /dev/null; do kill -0 $server; sleep 1; done
# the questions say themselves that they want steps: behind a URL a strategy asks in general words, not in this model's
reason data synthesize $here/questions.jsonl $here/made.jsonl --format prompt --strategy direct --attempts 6 --keep 2 \
    --agree 0.6 --set temperature=0.7 --max-tokens 60 --url http://127.0.0.1:8765
cat $here/labelled.jsonl $here/made.jsonl > $here/both.jsonl
for rows in all labelled both; do
    reason train sft --config docs/recipes/synthesize/student.yaml --set data=$here/$rows.jsonl --set out=$here/$rows
    reason eval units:levels=1,kind=time --model $here/$rows --strategies chain-of-thought:temperature=0 \
        --max-tokens 60 --threads 1 --out $here/answers-$rows
done
