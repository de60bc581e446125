"""``ballast signer``: the process that alone holds the command key. It loads nothing of the rest of the cloud."""

import argparse

from cloud import signer
from cloud.cli.options import add_config, add_ready, announcer, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add_config(parser)
    add_ready(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer requests until the process ends."""
    settings = read_settings(arguments)
    signer.serve(settings.signer_dir, settings.signer_socket, settings.max_stopped_miners, announcer(arguments))
    return 0
