"""Documents of a mesh are shared by the tests of the dashboard's tables."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
