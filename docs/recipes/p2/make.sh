#!/bin/sh
# The points of docs/results/p2.md: three sizes from nothing, each pruned at three rates and recovered. One thread.
set -eu
cd "$(dirname "$0")/../../.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
python docs/recipes/p2/rows.py .runs/p2
base() { out=$1; shift; [ -f "$out/manifest.json" ] || reason train sft -c docs/recipes/p2/base.yaml --set "out=$out" "$@"; }
base .runs/p2/base-s --set architecture.width=32 --set architecture.heads=1 --set architecture.intermediate=96
base .runs/p2/base-a
base .runs/p2/base-b --set architecture.layers=4 --set architecture.intermediate=192
for size in s a b; do
    for rate in 0.2 0.35 0.5; do
        [ -d ".runs/p2/$size-$rate" ] || reason compress prune ".runs/p2/base-$size" ".runs/p2/$size-$rate" \
            -c docs/recipes/p2/prune.yaml --set "rate=$rate"
    done
done
reason plan prune --points .runs/p2/points.jsonl
