"""Formats of data sets: one small module a family, and how a format is recognised."""
