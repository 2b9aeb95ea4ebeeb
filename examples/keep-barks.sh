#!/usr/bin/env bash
# Keep only the seconds of a video in which a dog barks: keep-barks.sh [VIDEO [OUT [NAME]]]
#
# Needs ffmpeg. NAME is what else to keep, such as trumpet.
set -euo pipefail

video=${1:-$(dirname "$0")/../sample_media/duet.mp4}
out=${2:-barks.mp4}
name=${3:-dog}

# A row of the table is name,start_s,end_s,score; it becomes a part of FFmpeg's filter graph. For
# the seconds in which the dog is also in view: av2tsam segment --hear words --events barks.csv
filter=$(av2tsam listen "$video" --name "$name" --timing fine --csv | awk -F, '
  NR > 1 {
    parts = parts "[0:v]trim=" $2 ":" $3 ",setpts=PTS-STARTPTS[v" NR "];"
    parts = parts "[0:a]atrim=" $2 ":" $3 ",asetpts=PTS-STARTPTS[a" NR "];"
    joined = joined "[v" NR "][a" NR "]"
  }
  END { if (NR > 1) print parts joined "concat=n=" NR - 1 ":v=1:a=1" }')

if [ -z "$filter" ]; then
  echo "$video: no $name is heard" >&2
  exit 1
fi
ffmpeg -v error -nostdin -n -i "$video" -filter_complex "$filter" "$out"
