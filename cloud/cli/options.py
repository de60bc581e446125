"""What every command takes, and how it becomes settings."""

import argparse
from pathlib import Path

from cloud.infra.process import act_as_owner
from cloud.settings import Settings, load_settings


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare ``--config``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (environment variables win)")


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name; root acts as the owner of ``data_dir`` from here on.

    Raises:
        BadInput: the settings cannot be used.
        Refused: root cannot act as that owner.
    """
    settings = load_settings(arguments.config)
    act_as_owner(settings.data_dir)
    return settings
