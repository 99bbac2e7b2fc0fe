#!/bin/sh
# Pre-trained against untrained against supervised, three seeds, small enough for one CPU core (hours):
#
#     scripts/cpu_matrix.sh FOLDER                    the synthetic corpus
#     scripts/cpu_matrix.sh FOLDER DATA               a folder of shards with train, valid and test
#
# Pre-trains each recipe's preset cpu-small, probes with 10 % and 100 % of the labels, trains the same encoders from
# scratch, fuses the two formats; appends to FOLDER/results.csv. The same command again goes on where it stopped.
set -eu
folder=$1
data=${2:-}
recipes=$(cd "$(dirname "$0")/../recipes" && pwd)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
mkdir -p "$folder"
cd "$folder"
if [ -z "$data" ]; then
    data=fastaug-data/demo-480x15s-0
    python -c 'from fastaug.ssl.data import demo_corpus; demo_corpus(tracks=480)'
fi

for recipe in cola simclr_spec clmr; do
    case $recipe in
        clmr) preset=cpu-small ;;
        simclr_spec) preset=simclr-cpu-small ;;
        *) preset=$recipe-cpu-small ;;
    esac
    for seed in 0 1 2; do
        python "$recipes/$recipe.py" --preset $preset --data "$data" --seed $seed --out $recipe-$seed
    done
    for mode in linear mlp scratch; do
        if [ ! -e $recipe-$mode.txt ]; then
            python "$recipes/probe.py" --checkpoint $recipe-0 $recipe-1 $recipe-2 --data "$data" --mode $mode \
                --labels 0.1,1 --record results.csv > $recipe-$mode.part
            mv $recipe-$mode.part $recipe-$mode.txt
        fi
    done
done
python "$recipes/fusion.py" --preset fusion-cpu-small --tables --data "$data" --out fusion
