"""Search: trees of steps, grown by a sampler and judged at their ends."""

from prefloop.search.tree_search import (
    Node,
    Sampled,
    Search,
    SearchSettings,
    Wanted,
    confidence_value,
    searched,
    together,
)

__all__ = ["Node", "Sampled", "Search", "SearchSettings", "Wanted", "confidence_value", "searched", "together"]
