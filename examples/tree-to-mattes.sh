#!/usr/bin/env bash
# Write a matte of each video in a folder and the folders in it: tree-to-mattes.sh [FOLDER [OUT]]
#
# OUT gets the same folders as FOLDER. Run it again after an interruption, or when there are new
# videos: finished ones are skipped. Add --overwrite to replace those whose video has changed.
set -euo pipefail

folder=${1:-$(dirname "$0")/../sample_media}
out=${2:-mattes}

av2tsam segment "$folder" --recursive -o "$out" --format matte --skip-existing \
  --log-file "$out.log"
