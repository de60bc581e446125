"""Any byte string a device may send, thrown at whatever reads it: ``python -m tests.fuzz --seconds N [--seed S]``."""
