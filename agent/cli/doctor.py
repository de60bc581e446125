"""What is wrong here, each cause with its next step: doctor."""

import argparse

from agent.cli.shared import FAILED, Commands, settings_of, takes_config


def add(commands: Commands) -> None:
    """Add the commands."""
    doctor = commands.add_parser("doctor", help="look for what is wrong, and say what to do next")
    takes_config(doctor, _doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON list")


def _doctor(options: argparse.Namespace) -> int:
    import json

    from agent.doctor.examine import examine
    from agent.doctor.finding import Level, lines
    from sitelink.clock import SystemClock

    findings = examine(settings_of(options), SystemClock())
    if options.json:
        print(json.dumps([finding.document() for finding in findings], indent=1))
    else:
        for line in lines(findings):
            print(line)
    return FAILED if any(finding.level is Level.BAD for finding in findings) else 0
