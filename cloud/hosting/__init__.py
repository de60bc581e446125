"""Sites, miners, the telemetry store and the dispatch of orders."""
