"""``ballast``: the operator's command line.

A module declares its commands with ``register(commands)``, or its one command with ``add_arguments(parser)`` and
``run(arguments) -> int``; ``main.COMMANDS`` says which module holds which command.
"""
