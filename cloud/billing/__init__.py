"""Energy invoices with their evidence: issued once, immutable, recomputed to the cent by anybody."""
