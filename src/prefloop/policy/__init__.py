"""Policies: where models come from, their chat template, what they say about answers, and who owns them."""

from prefloop.policy.added_gradients import added_gradients
from prefloop.policy.beginning import can_have_gaps, shared_length
from prefloop.policy.divergence import answer_kls
from prefloop.policy.encoding import Encoded, EncodingSettings, LossOn, Truncation, encoded
from prefloop.policy.freed_memory import return_freed_memory
from prefloop.policy.functionals import (
    RowScores,
    TokenRow,
    batches_within,
    prompt_logps,
    response_logps,
    score_rows,
)
from prefloop.policy.growing import Growing, PassedPrompts, closed_up, grows_answers
from prefloop.policy.linear_layers import packed_weights
from prefloop.policy.live import LiveReference
from prefloop.policy.memory import BatchShape, ModelFacts, Part, model_facts
from prefloop.policy.model_files import model_identity
from prefloop.policy.passed_tokens import passed_tokens
from prefloop.policy.precision import widest
from prefloop.policy.source import ModelDescription, ModelSource, check_model, describe_model, resolve_model
from prefloop.policy.template import ChatCodec
from prefloop.policy.tree_scores import TreeScores, forest_of, takes_trees
from prefloop.policy.trees import Forest
from prefloop.policy.workbench import PolicyFiles, Trainable, Workbench

__all__ = [
    "BatchShape",
    "ChatCodec",
    "Encoded",
    "EncodingSettings",
    "Forest",
    "Growing",
    "LiveReference",
    "LossOn",
    "ModelDescription",
    "ModelFacts",
    "ModelSource",
    "Part",
    "PassedPrompts",
    "PolicyFiles",
    "RowScores",
    "TokenRow",
    "Trainable",
    "TreeScores",
    "Truncation",
    "Workbench",
    "added_gradients",
    "answer_kls",
    "batches_within",
    "can_have_gaps",
    "check_model",
    "closed_up",
    "describe_model",
    "encoded",
    "forest_of",
    "grows_answers",
    "model_facts",
    "model_identity",
    "packed_weights",
    "passed_tokens",
    "prompt_logps",
    "resolve_model",
    "response_logps",
    "return_freed_memory",
    "score_rows",
    "shared_length",
    "takes_trees",
    "widest",
]
