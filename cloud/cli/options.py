"""Options that every command takes."""

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare ``--config``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (environment variables win)")
