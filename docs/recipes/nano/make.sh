#!/bin/sh
# Makes reason-nano: three trainings, one after the other, on one thread. A killed run goes on when this is called again.
# The two settings of the allocator spare the kernel most page faults and change no number.
set -eu
cd "$(dirname "$0")/../../.."
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
for part in 1-begin 2-value 3-polish; do
    # a part that has ended left a manifest
    [ -f ".runs/nano-${part%%-*}/manifest.json" ] || reason train sft --config "docs/recipes/nano/$part.yaml"
done
cd .runs/nano-3
mkdir -p ../nano
cp config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja ../nano
