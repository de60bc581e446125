"""The edge agent: polls miners, buffers telemetry, and carries out signed plans without needing the link."""
