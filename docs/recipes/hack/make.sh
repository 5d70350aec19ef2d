#!/bin/sh
# The three runs and, step by step, what each was paid and how much of it was true.
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PWD/.venv/bin:$PATH
for part in 1-length 2-length-kl 3-composite; do
    [ -f ".runs/hack-${part#*-}/manifest.json" ] || reason train grpo --config "docs/recipes/hack/$part.yaml"
done
python docs/recipes/hack/table.py .runs/hack-length .runs/hack-length-kl .runs/hack-composite
