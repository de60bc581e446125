"""The control plane: stores what sites report, plans, signs and dispatches orders, verifies and bills."""
