"""A policy that is a table: a few answers, and a next-token distribution behind every beginning of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

Tokens = tuple[int, ...]

PROMPT, EOS = 0, 1
"""Token ids of the prompt, which is one token, and of the end of an answer. Words are counted from 2."""
IMPOSSIBLE = -1e5
"""Logit of a token that begins no answer: its probability is exactly 0, and 0 log 0 stays 0 without a NaN."""


class TableConfig(PretrainedConfig):
    """What `transformers` asks of any model: there are no layers that could hold a cache."""

    model_type = "prefloop_table"
    num_hidden_layers = 0


class TabularPolicy(PreTrainedModel):
    """All policies over some answers, as a language model: it is asked for logits behind tokens, and nothing else.

    No answer is the beginning of another, so that the next tokens' distributions and the answers' probabilities say the
    same. It is in float64 and on CPU.
    """

    config_class = TableConfig

    def __init__(self, answers: Sequence[Tokens], logps: Float[Tensor, " answers"]) -> None:
        """The policy that gives these answers these log-probabilities, which need not be normalised."""
        vocab = max(max(answer) for answer in answers) + 1
        super().__init__(TableConfig())
        self.answers = tuple(answers)
        self.contexts = _contexts(answers)
        whole = enumerate(self.answers, start=len(self.contexts))
        self.states = {**self.contexts, **{answer: number for number, answer in whole}}
        """Every beginning and every answer, with the component of a hidden state that is 1 behind it, and no other."""
        allowed = torch.zeros(len(self.contexts), vocab, dtype=torch.bool)
        mass = torch.full((len(self.contexts), vocab), IMPOSSIBLE, dtype=torch.float64)
        for answer, logp in zip(answers, logps.double().log_softmax(0), strict=True):
            for position, token in enumerate(answer):
                context = self.contexts[answer[:position]]
                allowed[context, token] = True
                mass[context, token] = torch.logaddexp(mass[context, token], logp)
        open_tokens = allowed & (allowed.sum(1, keepdim=True) > 1)
        self.places: Int[Tensor, "free 2"] = open_tokens.nonzero()
        """Context and token of every logit that is free; where one token alone can follow nothing is."""
        self.fixed: Float[Tensor, "contexts vocab"] = torch.where(allowed, 0.0, IMPOSSIBLE).double()
        self.free = nn.Parameter(mass[open_tokens])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: int = 0,
        past_key_values: object = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits behind each of the last tokens; `attention_mask` says which tokens are padding, on the left.

        Hidden states are of these tokens too, and tell every beginning from every other: a head on them is a table.
        """
        assert past_key_values is None, "a table reads a whole beginning, not what is new of it"
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        first = input_ids.shape[1] - (logits_to_keep or input_ids.shape[1])
        read = torch.tensor(
            [
                [self._state(ids, seen, end) for end in range(first + 1, len(ids) + 1)]
                for ids, seen in zip(input_ids.tolist(), real.tolist(), strict=True)
            ]
        )
        states = (one_hot(read, len(self.states)).double(),) if output_hidden_states else None
        # behind an answer's end nobody reads what might follow
        logits = self.table()[read.where(read < len(self.contexts), 0)]
        return CausalLMOutput(logits=logits, hidden_states=states)  # pyright: ignore[reportArgumentType]

    def table(self) -> Float[Tensor, "contexts vocab"]:
        """Logits of the next token behind every beginning; gradient flows."""
        return self.fixed.index_put(tuple(self.places.T), self.free)

    def _state(self, ids: Sequence[int], seen: Sequence[int], end: int) -> int:
        tokens = tuple(token for token, is_real in zip(ids[:end], seen[:end], strict=True) if is_real)
        return self.states.get(tokens[1:], 0)  # of padding, which nobody reads

    def with_logits(self, free: Float[Tensor, " free"]) -> "TabularPolicy":
        """Another policy over the same answers, by its free logits."""
        other = TabularPolicy(self.answers, torch.zeros(len(self.answers)))
        other.free = nn.Parameter(free.detach().clone())
        return other

    def tempered(self, temperature: float) -> "TabularPolicy":
        """The policy that samples token by token at this temperature; at 0 the most likely token has all of it."""
        if temperature > 0:
            return self.with_logits(self.free / temperature)
        table = self.table()
        likeliest = torch.zeros_like(table, dtype=torch.bool).scatter(1, table.argmax(1, keepdim=True), value=True)
        return self.with_logits(torch.where(likeliest[tuple(self.places.T)], 0.0, IMPOSSIBLE).double())

    def logps(self) -> Float[Tensor, " answers"]:
        """Log-probability of each answer, read off the table; gradient flows."""
        table = self.table().log_softmax(1)
        paths = [[(self.contexts[answer[:n]], token) for n, token in enumerate(answer)] for answer in self.answers]
        return torch.stack([table[tuple(torch.tensor(path).T)].sum() for path in paths])


def _contexts(answers: Sequence[Tokens]) -> Mapping[Tokens, int]:
    """Every beginning of an answer, the empty one first, with its line in the table."""
    beginnings = dict.fromkeys(answer[:length] for answer in answers for length in range(len(answer)))
    if len(set(answers)) < len(answers) or not beginnings.keys().isdisjoint(answers):
        raise ValueError("an answer is another one, or its beginning; end each with EOS")
    return {beginning: number for number, beginning in enumerate(sorted(beginnings))}


def arms(count: int) -> tuple[Tokens, ...]:
    """Answers of a word each, that end by themselves."""
    return tuple((2 + number, EOS) for number in range(count))


def of_lengths(lengths: Sequence[int]) -> tuple[Tokens, ...]:
    """Answers of so many tokens each, EOS included, that differ from their first word on."""
    return tuple((2 + number,) * (length - 1) + (EOS,) for number, length in enumerate(lengths))


def language(words: int, longest: int) -> tuple[Tokens, ...]:
    """All sentences of some words that are at most so many words long; each ends with EOS, the longest ones too."""
    sentences: list[Tokens] = [()]
    for sentence in sentences:
        if len(sentence) < longest:
            sentences += [(*sentence, 2 + word) for word in range(words)]
    return tuple((*sentence, EOS) for sentence in sentences)
