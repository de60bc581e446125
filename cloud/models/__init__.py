"""Tables, one module per owner. Importing this package's modules registers them on ``base.METADATA``."""
