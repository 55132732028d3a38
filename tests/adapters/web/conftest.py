"""Puts this folder's helpers on the path: test files are imported by path, one by one."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
