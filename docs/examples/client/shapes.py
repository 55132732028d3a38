"""What ``shapes.yaml`` calls. Results of needed tasks stand below ``results``, as JSON."""

import json
from pathlib import Path


def area(side: str, *, unit: str) -> dict[str, object]:
    return {"area": int(side) ** 2, "unit": unit}


def report() -> str:
    found = [json.loads(one.read_text()) for one in sorted(Path("results").glob("area.*.json"))]
    return f"{sum(one['area'] for one in found)} {found[0]['unit']}²"
