"""Pure ground of the cloud: errors, access, money and the catalogue of events. No I/O, no clock, no framework."""
