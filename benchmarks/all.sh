#!/bin/sh
# Measure everything and write RESULTS.md: benchmarks/all.sh [ROUNDS].
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
mkdir -p benchmarks/results
$python benchmarks/compare.py --rounds "${1:-3}"
$python benchmarks/quality.py
$python benchmarks/curves.py
$python benchmarks/api_path.py >benchmarks/results/api_path.md
$python benchmarks/embeddings.py >benchmarks/results/embeddings.md
$python benchmarks/report.py
