#!/usr/bin/env bash
# From a folder of scenes to a folder of masks and polygons, each with its legend for QGIS.
#
#   predict_folder.sh SCENES OUTPUT MODEL.safetensors [more options of cvmh predict]
#
# Run it again after an interruption, or after new scenes have come: what is done is not repeated.
# Exit code: 0 all done, 3 some scenes failed (each is named), else nothing was done.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: ${0##*/} SCENES OUTPUT MODEL.safetensors [options of cvmh predict]" >&2
    exit 2
fi
input=$1 output=$2 model=$3
shift 3
# Whatever the case of the suffix; add others that your scenes have.
shopt -s nullglob nocaseglob
scenes=("$input"/*.tif "$input"/*.tiff "$input"/*.vrt "$input"/*.jp2)
if [ ${#scenes[@]} -eq 0 ]; then
    echo "${0##*/}: no .tif, .tiff, .vrt or .jp2 in $input" >&2
    exit 2
fi
mkdir -p "$output"
exec cvmh predict "${scenes[@]}" -o "$output/{stem}.tif" --vectors "$output/{stem}.gpkg" \
    --checkpoint "$model" --resume "$@"
