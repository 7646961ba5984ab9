"""Step type `search`: a tree of steps behind every prompt. What it keeps of it is the chosen path with all siblings."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from prefloop.config import LlmJudge, Recipe, SearchStep, StepConfig
from prefloop.judging import LAST_STEP, Ask, Judge, JudgeMachine, judge_prompt, make_judge
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.train import TOKENS_PER_BATCH
from prefloop.loop.steps.work import OF_GROUPS, StepType, Work, nearest
from prefloop.records import (
    Judgment,
    Prompt,
    Record,
    Response,
    digest,
    in_pieces,
    read_records,
    shard_name,
    write_records,
)
from prefloop.sampling import Draw, LocalPolicies, SamplingSettings, Serving, draws_for
from prefloop.search import Node, Sampled, SearchSettings, Wanted, searched, together


def make_tree(work: Work) -> Mapping[str, float]:
    """Searches every prompt; a wave that was complete before a crash is not searched again."""
    settings = work.settings
    assert isinstance(settings, SearchStep)
    counts = {"prompts": 0, "responses": 0, "right": 0}
    done = 0
    total = sum(1 for _ in work.records("prompts", Prompt))
    with ExitStack() as stack:
        serving: Serving | None = None
        for shard in range(work.num_shards("prompts")):
            made: dict[type[Record], list[Record]] = {kind: [] for kind in OF_GROUPS}
            for wave, prompts in enumerate(in_pieces(work.records("prompts", Prompt, shard), settings.wave)):
                kept = work.scratch / f"{shard_name(shard)}.wave-{wave:05d}"
                if not kept.exists():
                    serving = serving or stack.enter_context(_served(work))
                    _write_wave(kept, _Searching(work, settings, serving, prompts).records())
                for kind, name in OF_GROUPS.items():
                    made[kind] += read_records(kept / name, kind)
                done += len(prompts)
                work.report("questions", done, total)
            for kind, records in made.items():
                write_records(work.out / OF_GROUPS[kind] / shard_name(shard), records)
            counts["prompts"] += len(made[Prompt])
            counts["responses"] += len(made[Response])
            counts["right"] += sum(
                1 in one.values for one in made[Judgment] if isinstance(one, Judgment) and one.kind == "label"
            )
    return counts


def _served(work: Work) -> AbstractContextManager[Serving]:
    """The policy, in this process."""
    rows = work.resources.rows_of(work.artifact.path)
    return LocalPolicies(work.resources.bench, rows).serving(work.policy("policy"))


def _write_wave(kept: Path, records: Sequence[Record]) -> None:
    """Writes what a wave made aside, and gives it its name when all of it is on disk."""
    aside = kept.with_suffix(".writing")
    for kind, name in OF_GROUPS.items():
        write_records(aside / name, [one for one in records if isinstance(one, kind)])
        with (aside / name).open("rb") as written:
            os.fsync(written.fileno())
    aside.rename(kept)


class _Searching:
    """A wave of questions that are searched side by side."""

    def __init__(self, work: Work, settings: SearchStep, serving: Serving, prompts: Sequence[Prompt]) -> None:
        self.work = work
        self.settings = settings
        self.serving = serving
        self.prompts = prompts
        self.codec = work.resources.bench.codec
        self.judge: Judge = make_judge(settings.judge)
        self.confident = settings.worth == "confidence"
        self.drawing = SamplingSettings(settings.temperature, settings.top_p, settings.max_new_tokens)

    def records(self) -> list[Record]:
        """What is kept of all trees."""
        settings = SearchSettings(
            simulations=self.settings.simulations,
            depth=self.settings.depth,
            max_steps=self.settings.max_steps,
            num_actions=self.settings.num_actions,
            rollouts=0 if self.confident else self.settings.rollouts,
            confidence=self.confident,
            w_exp=self.settings.w_exp,
            length_penalty=self.settings.length_penalty,
        )
        paths = together([searched(settings) for _ in self.prompts], self.sampled)
        return [one for prompt, path in zip(self.prompts, paths, strict=True) for one in self.kept(prompt, path)]

    def sampled(self, asked: Sequence[tuple[int, Wanted]]) -> list[list[Sampled]]:
        """Continuations of some beginnings, and how those end that end."""
        if any(wanted.rated for _, wanted in asked):
            return self.with_confidence(asked)
        found: dict[tuple[str, int, bool], Sampled] = {}
        for whole in (False, True):
            draws = [draw for number, wanted in asked if wanted.whole == whole for draw in self.draws(number, wanted)]
            one_step = replace(self.drawing, max_new_tokens=self.settings.max_step_tokens, stop=self.settings.step_ends)
            for answer in self.serving.sample(draws, self.drawing if whole else one_step) if draws else ():
                assert answer.sum_logp is not None
                ended = answer.finish_reason == "stop" and answer.token_ids[-1] in self.codec.eos_ids
                found[answer.draw.prompt_id, answer.draw.index, whole] = Sampled(
                    answer.token_ids, answer.sum_logp, ended, -1.0, answer.draw.index
                )
        wanted_of = [(self.beginning(number, wanted.prefix_ids), wanted) for number, wanted in asked]
        groups = [
            [found[prompt.prompt_id, index, wanted.whole] for index in range(wanted.count)]
            for prompt, wanted in wanted_of
        ]
        ends = [
            (place, index, self.response(prompt, one))
            for place, ((prompt, _), group) in enumerate(zip(wanted_of, groups, strict=True))
            for index, one in enumerate(group)
            if one.ended
        ]
        asks = [Ask(wanted_of[place][0], (response,)) for place, _, response in ends]
        for number, verdict in self.judge.judge(asks):
            place, index, _ = ends[number]
            groups[place][index] = replace(groups[place][index], outcome=1.0 if verdict.values == (1.0,) else -1.0)
        return groups

    def with_confidence(self, asked: Sequence[tuple[int, Wanted]]) -> list[list[Sampled]]:
        """The same where some want to know how sure the policy is of a beginning, by the judge of steps."""
        plain = [place for place, (_, wanted) in enumerate(asked) if not wanted.rated]
        found = dict(zip(plain, self.sampled([asked[place] for place in plain]), strict=True))
        rated = [place for place in range(len(asked)) if place not in found]
        beginnings = [self.beginning(asked[place][0], asked[place][1].prefix_ids) for place in rated]
        asks = [
            Ask(self.prompts[asked[place][0]], (self.response(one, Sampled((), 0.0, ended=False, outcome=0.0)),))
            for place, one in zip(rated, beginnings, strict=True)
        ]
        said = dict(self.confidence.judge(asks))
        for number, place in enumerate(rated):
            (value,) = said[number].values
            found[place] = [Sampled((), 0.0, ended=False, outcome=value or 0.0)]
        return [found[place] for place in range(len(asked))]

    @cached_property
    def confidence(self) -> Judge:
        """The policy, asked whether a solution is right so far."""
        resources = self.work.resources
        tokens = resources.machine.tokens_per_batch
        machine = JudgeMachine(
            resources.bench.device,
            TOKENS_PER_BATCH if tokens == "auto" else tokens,
            bench=resources.bench,
            policies={"judge": self.work.policy("policy")},
        )
        return make_judge(LlmJudge(type="llm", policy=self.settings.policy, prompt=LAST_STEP), machine)

    def beginning(self, number: int, prefix_ids: tuple[int, ...]) -> Prompt:
        """A question with a beginning of its solution."""
        return self.prompts[number].derived(prefix_ids=(*self.prompts[number].prefix_ids, *prefix_ids))

    def draws(self, number: int, wanted: Wanted) -> Iterator[Draw]:
        """The draws of a beginning; their seeds are those of its place, whatever is searched beside it."""
        prompt = self.beginning(number, wanted.prefix_ids)
        place = self.work.artifact.place
        yield from draws_for(
            prompt.prompt_id,
            self.codec.prompt_ids(prompt),
            num_samples=wanted.count,
            recipe_seed=self.work.recipe.seed,
            step=self.work.artifact.step + ".rollouts" * wanted.whole,
            round_number=-1 if place.round is None else place.round,
            block=place.block or 0,
        )

    def response(self, prompt: Prompt, step: Sampled) -> Response:
        """A continuation as an answer to its beginning."""
        token_ids = (*prompt.prefix_ids, *step.token_ids)
        said = self.codec.said(token_ids)
        policy = self.work.artifact.inputs["policy"][0].identity
        return Response(
            response_id=digest([prompt.prompt_id, policy, self.work.artifact.step, self.work.turn, step.index])[:16],
            prompt_id=prompt.prompt_id,
            root_id=prompt.root_id,
            step=self.work.artifact.step,
            text=said.text,
            thinking=said.thinking,
            num_thinking=said.num_thinking,
            token_ids=token_ids,
            finish_reason="stop",
            given=((0, len(prompt.prefix_ids)),) if prompt.prefix_ids else (),
            sum_logp=step.sum_logp,
            policy=policy,
            settings={"temperature": self.settings.temperature, "top_p": self.settings.top_p},
            index=step.index,
        )

    def kept(self, question: Prompt, path: Sequence[Node]) -> Iterator[Record]:
        """The beginnings on the chosen path, the steps behind each with their visits and Q, and how the path ends."""
        number = self.prompts.index(question)
        last: Response | None = None
        for node, below in pairwise(path):
            prompt = self.beginning(number, node.prefix_ids)
            yield prompt
            children = [child for child in node.children or () if child.step is not None]
            responses = [self.response(prompt, child.step) for child in children if child.step is not None]
            yield from responses
            ids = tuple(one.response_id for one in responses)
            for aspect, values in (
                ("visits", tuple(float(child.visits) for child in node.found)),
                ("q", tuple(child.q for child in node.found)),
            ):
                yield Judgment(judge=self.judge.name, kind="score", aspect=aspect, subjects=ids, values=values)
            last = responses[children.index(below)]
        assert last is not None
        end = path[-1].step
        right = end is not None and end.ended and end.outcome == 1
        yield Judgment(judge=self.judge.name, kind="label", subjects=(last.response_id,), values=(float(right),))


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, SearchStep)
    return {"prompts": nearest(settings, scope, Prompt), "policy": (scope.policy(settings.policy),)}


def _external(_name: str, settings: StepConfig, _recipe: Recipe) -> Mapping[str, str]:
    """What the policy is asked about its steps, where it is asked."""
    assert isinstance(settings, SearchStep)
    return {"judge prompt": judge_prompt(LAST_STEP, "one").identity} if settings.worth == "confidence" else {}


SEARCH = StepType(make_tree, _inputs, holds=lambda _settings: OF_GROUPS, external=_external)
