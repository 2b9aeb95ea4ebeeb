#!/bin/sh
# Measure everything that matters on one GPU, in at most 10 minutes: gpu.sh [RESULTS.json] [SECONDS]
set -eu
here=$(dirname "$0")
export PYTHONUNBUFFERED=1 PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$here/gpu.py" --out "${1:-gpu.json}" --budget "${2:-560}"
