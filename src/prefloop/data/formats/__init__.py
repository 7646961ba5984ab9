"""Formats of data sets: one small module a family, and how a format is recognised. Importing this registers all."""

from prefloop.data.formats import (
    axolotl,
    hh,
    llama_factory,
    ms_swift,
    multiple_choice,
    own,
    prompts,
    ranked,
    rated,
    suites,
    summaries,
    trl,
    ultrafeedback,
)
from prefloop.data.formats.detect import ROWS_LOOKED_AT, Detected, detect
from prefloop.data.formats.kinds import kind_of
from prefloop.data.formats.registry import Format, Kind, find_format, formats, register

__all__ = [
    "ROWS_LOOKED_AT",
    "Detected",
    "Format",
    "Kind",
    "axolotl",
    "detect",
    "find_format",
    "formats",
    "hh",
    "kind_of",
    "llama_factory",
    "ms_swift",
    "multiple_choice",
    "own",
    "prompts",
    "ranked",
    "rated",
    "register",
    "suites",
    "summaries",
    "trl",
    "ultrafeedback",
]
