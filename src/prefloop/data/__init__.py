"""Prompt and preference sets: read, checked, and cut into the parts of rounds."""

from prefloop.data.preferences import GivenPair, read_preferences
from prefloop.data.prompts import prompts_of_turn, read_prompts
from prefloop.data.source import DataSource, find_source

__all__ = ["DataSource", "GivenPair", "find_source", "prompts_of_turn", "read_preferences", "read_prompts"]
