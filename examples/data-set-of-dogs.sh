#!/usr/bin/env bash
# Make a COCO data set of each video in which a dog is heard: data-set-of-dogs.sh [FOLDER [OUT]]
#
# Listening is much quicker than segmenting, so all videos are listened to, and only those with a
# dog are segmented.
set -euo pipefail

folder=${1:-$(dirname "$0")/../sample_media}
out=${2:-dogs}

mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$folder"  # outputs get the folders of listed files below the working directory

# xargs passes as many names as fit on a command line. It fails if one of the videos does, such as
# one without sound; the JSON then says why.
find . -type f -name '*.mp4' -print0 |
  xargs -0 av2tsam listen --name dog --json > "$out/heard.jsonl" ||
  echo "not all videos could be listened to, see $out/heard.jsonl" >&2

# Names end with NUL, because they can contain line breaks.
python3 -c '
import json, sys

for line in sys.stdin:
    video = json.loads(line)
    if video.get("events"):
        print(video["input"], end="\0")
' < "$out/heard.jsonl" |
  av2tsam segment --files-from - --null -o "$out" --format coco --hear words --name dog \
    --skip-existing
