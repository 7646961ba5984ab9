"""Shipped suites: YAML, data only."""
