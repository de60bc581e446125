"""What stops a simulator: one line each, naming the cause and the next step."""


class SimulatorError(Exception):
    """The simulator cannot start or go on; the text is the whole message for the operator."""


class BadInput(SimulatorError):
    """A file or an option cannot be used; nothing was started."""
