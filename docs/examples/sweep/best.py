"""Prints the results of a sweep, the shortest tour first."""

import json
import sys

results = []
for path in sys.argv[1:]:
    with open(path) as file:
        results.append(json.load(file))
for place, result in enumerate(sorted(results, key=lambda result: result["length"]), start=1):
    print(f"{place:2}. {result['length']:.4f}  {result['cooling']}, seed {result['seed']}")
