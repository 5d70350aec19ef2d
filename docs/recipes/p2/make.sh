#!/bin/sh
# The points of docs/results/p2.md: three sizes from nothing, each pruned at four rates and recovered. One thread.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
PATH=$PWD/.venv/bin:$PATH
python docs/recipes/p2/rows.py .runs/p2
base() { out=$1; shift; [ -f "$out/manifest.json" ] || reason train sft -c docs/recipes/p2/base.yaml --set "out=$out" "$@"; }
base .runs/p2/base-64
base .runs/p2/base-96 --set architecture.width=96 --set architecture.heads=3 --set architecture.intermediate=192
base .runs/p2/base-128 --set architecture.width=128 --set architecture.heads=4 --set architecture.intermediate=256 \
    --set architecture.kv_heads=2
for size in 64:1 96:1 128:2; do
    for rate in 0.3 0.37 0.44 0.5; do
        name=${size%:*}
        [ -d ".runs/p2/$name-$rate" ] || reason compress prune ".runs/p2/base-$name" ".runs/p2/$name-$rate" \
            -c docs/recipes/p2/prune.yaml --set "rate=$rate" --set "kv_heads=${size#*:}"
    done
done
reason plan prune --points .runs/p2/points.jsonl
