"""The project that is being upgraded."""

from pathlib import Path

ROOT = Path.cwd()
"""Its folder: `environment/upgrade.py` there starts this code in it."""
