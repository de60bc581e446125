"""What a screen says, worked out from what was read: pure functions, no I/O, no clock, no framework."""
