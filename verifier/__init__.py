"""What a customer runs: recomputes an invoice from its evidence with nothing but Python's standard library."""
