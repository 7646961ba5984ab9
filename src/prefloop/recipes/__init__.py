"""Shipped recipes: YAML, data only."""
