"""Sampling over HTTP from a real small server that serves builtin:tiny, with planted faults."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from prefloop.errors import RecipeError, ResumableError
from prefloop.policy import PolicyFiles, TokenRow, Workbench, score_rows
from prefloop.sampling import (
    Answer,
    Draw,
    KeptAnswers,
    Patience,
    Pool,
    SamplingSettings,
    ServerPolicies,
)
from prefloop.sampling.server import ServedPolicy
from prefloop.testing import FAULTS, REFUSALS, CompletionsServer, Faults

from .conftest import PLAIN, QUICK, draws


@contextmanager
def served(
    bench: Workbench,
    policy: PolicyFiles,
    folder: Path,
    *servers: CompletionsServer,
    notes: list[str] | None = None,
    patience: Patience = QUICK,
    concurrency: int = 4,
) -> Generator[ServedPolicy, None, None]:
    with ExitStack() as stack:
        urls = [stack.enter_context(server.running()) for server in servers]
        kept = stack.enter_context(closing(KeptAnswers(folder / "answers.sqlite")))
        said = notes if notes is not None else []
        sampler = ServerPolicies(lambda: Pool(urls, concurrency, patience), "tiny", bench, kept, said.append)
        yield stack.enter_context(sampler.serving(policy))


def ordered(answers: Sequence[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda answer: (answer.draw.prompt_id, answer.draw.index))


def test_tokens_and_log_probabilities_are_the_policys(bench: Workbench, policy: PolicyFiles, tmp_path: Path) -> None:
    server, notes = CompletionsServer(bench, policy), list[str]()
    wanted = draws(bench)
    with served(bench, policy, tmp_path, server, notes=notes) as serving:
        answers = ordered(list(serving.sample(wanted, PLAIN)))
    assert notes == []
    assert [answer.draw for answer in answers] == wanted
    assert {answer.ids_from for answer in answers} == {"sampler"}
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    rows = [TokenRow(a.draw.prompt_ids, a.token_ids, (True,) * len(a.token_ids)) for a in answers]
    ours = list(score_rows(bench.base(policy.directory), rows, 4096))
    assert [answer.sum_logp for answer in answers] == pytest.approx(ours, abs=1e-4)
    assert all((answer.token_ids[-1] in bench.codec.eos_ids) == (answer.finish_reason == "stop") for answer in answers)


def test_a_tempered_log_probability_is_left_out_since_servers_give_those_of_the_policy(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    with served(bench, policy, tmp_path, CompletionsServer(bench, policy)) as serving:
        answers = list(serving.sample(draws(bench, 1), SamplingSettings(0.7, 1.0, 8)))
    assert [answer.sum_logp for answer in answers] == [None] * 3


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("prompt_ids", "takes no prompt as token ids"),
        ("n", "gives one choice whatever n says: one request an answer"),
        ("logprobs", "gives no log-probabilities"),
        ("return_token_ids", "gives no token ids that decode to its text: answers are tokenised again"),
        ("seed", "gives other answers to the same seed"),
    ],
)
def test_what_a_server_ignores_is_found_and_said(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path, lacks: str, said: str
) -> None:
    server, notes = CompletionsServer(bench, policy, lacks=frozenset({lacks})), list[str]()
    wanted = draws(bench, 2)
    with served(bench, policy, tmp_path, server, notes=notes) as serving:
        asked = len(server.answers)
        answers = ordered(list(serving.sample(wanted, PLAIN)))
    assert len(notes) == 1
    assert said in notes[0]
    assert [answer.draw for answer in answers] == wanted
    assert len(server.answers) - asked == (6 if lacks == "n" else 2)
    assert all((answer.sum_logp is None) == (lacks == "logprobs") for answer in answers)
    assert {answer.ids_from for answer in answers} == {"text" if lacks == "return_token_ids" else "sampler"}


@pytest.mark.slow
def test_text_that_is_tokenised_again_has_its_eos(bench: Workbench, policy: PolicyFiles, tmp_path: Path) -> None:
    wanted = draws(bench)
    both: list[list[Answer]] = []
    for lacks in (frozenset[str](), frozenset({"return_token_ids"})):
        (tmp_path / str(len(both))).mkdir()
        with served(bench, policy, tmp_path / str(len(both)), CompletionsServer(bench, policy, lacks=lacks)) as serving:
            both.append(ordered(list(serving.sample(wanted, PLAIN))))
    own, again = both
    assert [bench.codec.text_of(a.token_ids) for a in again] == [bench.codec.text_of(a.token_ids) for a in own]
    assert [a.token_ids[-1] in bench.codec.eos_ids for a in again] == [a.finish_reason == "stop" for a in own]


def test_log_probabilities_that_are_none_are_not_believed(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    """At a tenth of their size five tokens have more than all probability; a negative factor makes them positive."""
    for factor in (0.1, -1.0):
        notes: list[str] = []
        server = CompletionsServer(bench, policy, false_logps=factor)
        with served(bench, policy, tmp_path, server, notes=notes):
            assert len(notes) == 1
            assert "gives no log-probabilities that are some" in notes[0]


def test_other_weights_are_found_by_their_log_probabilities(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    server = CompletionsServer(bench, policy, false_logps=1.3)
    with (
        pytest.raises(ResumableError) as error,
        served(bench, policy, tmp_path, server),
    ):
        pass
    assert "so it serves other weights, such as those of the round before" in str(error.value)
    assert "takes no new weights (update_weights_from_disk answered 404)" in str(error.value)
    assert f"Serve the weights in {policy.directory} as tiny and give the same command again." in str(error.value)
    assert error.value.exit_code == 75


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("top_p", 0.9, marks=pytest.mark.slow),
        pytest.param("top_k", 5, marks=pytest.mark.slow),
        ("min_p", 0.1),
        pytest.param("repetition_penalty", 1.2, marks=pytest.mark.slow),
        ("stop", (".",)),
        pytest.param("stop_ids", (7,), marks=pytest.mark.slow),
    ],
)
def test_a_setting_that_a_server_ignores_is_an_error_and_one_that_it_takes_is_not(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path, name: str, value: object
) -> None:
    settings = SamplingSettings(**{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, name: value})  # pyright: ignore
    with served(bench, policy, tmp_path, CompletionsServer(bench, policy)) as serving:
        assert len(list(serving.sample(draws(bench, 1), settings))) == 3
    field = {"stop_ids": "stop_token_ids"}.get(name, name)
    lacking = CompletionsServer(bench, policy, lacks=frozenset({field}))
    with served(bench, policy, tmp_path, lacking) as serving:
        other = [Draw("p", 0, 99, draws(bench, 1)[0].prompt_ids)]
        with pytest.raises(RecipeError, match=rf"/v1: {name} is .*, which the server ignores. Leave it out"):
            list(serving.sample(other, settings))


def test_with_every_fault_in_turn_the_answers_are_those_without_any_and_no_answered_call_is_repeated(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    """A third of the requests go wrong, each kind at least once; calls that a client left are not answered."""
    kinds = tuple(sorted(FAULTS.keys() - REFUSALS))
    wanted = draws(bench, 14)
    found: list[list[Answer]] = []
    for share in (0.0, 0.3):
        folder = tmp_path / str(share)
        folder.mkdir()
        server = CompletionsServer(bench, policy, lacks=frozenset({"n"}))
        with served(bench, policy, folder, server) as serving:
            serving.pool.patience = replace(QUICK, timeout_s=2.0)
            before, first = len(server.answers), server.requests
            server.faults = Faults(share, kinds, seed=3)
            found.append(ordered(list(serving.sample(wanted, PLAIN))))
        asked = [body for body in server.answers[before:] if '"seed"' in body]
        assert len(asked) == len(set(asked)) == 42
        met = {server.faults.at(number) for number in range(first, server.requests)} - {None}
        assert met == (set(kinds) if share else set())
    assert found[0] == found[1]


def test_what_was_answered_is_kept_and_never_asked_again(bench: Workbench, policy: PolicyFiles, tmp_path: Path) -> None:
    wanted = draws(bench, 6)
    server = CompletionsServer(bench, policy)
    with served(bench, policy, tmp_path, server, concurrency=1) as serving:
        answers = serving.sample(wanted, PLAIN)
        first = [next(answers) for _ in range(4)]  # two requests of three answers are kept when the process ends
        answers.close()
        done = len(server.answers)
    again = CompletionsServer(bench, policy)
    with served(bench, policy, tmp_path, again) as serving:
        proved = len(again.answers)
        whole = ordered(list(serving.sample(wanted, PLAIN)))
        assert len(again.answers) - proved == 4
    assert set(first) <= set(whole)
    assert len(whole) == 18
    assert done < proved + 4


def test_a_server_that_stays_away_stops_the_step_so_that_it_goes_on_later(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    server = CompletionsServer(bench, policy)
    short = replace(QUICK, timeout_s=0.5, deadline_s=0.4)
    with served(bench, policy, tmp_path, server) as serving:
        serving.pool.patience, server.is_down = short, True
        with pytest.raises(ResumableError, match=r"No usable answer within 0.4 s\. Look after the server and give"):
            list(serving.sample(draws(bench), PLAIN))
        serving.pool.patience, server.is_down = QUICK, False
        assert len(list(serving.sample(draws(bench), PLAIN))) == 12
    down = CompletionsServer(bench, policy, is_down=True)
    with (
        pytest.raises(ResumableError, match="No usable answer within"),
        served(bench, policy, tmp_path, down, patience=short),
    ):
        pass


def test_a_pool_with_one_server_that_dies_and_one_that_is_slow_gives_the_answers_of_one_server(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    wanted, notes = draws(bench, 10), list[str]()
    with served(bench, policy, tmp_path, CompletionsServer(bench, policy)) as serving:
        alone = ordered(list(serving.sample(wanted, PLAIN)))
    dead, dying, slow, well = (CompletionsServer(bench, policy, is_down=down) for down in (True, False, False, False))
    folder = tmp_path / "pool"
    folder.mkdir()
    with served(bench, policy, folder, dead, dying, slow, well, notes=notes, concurrency=1) as serving:
        proved = len(dying.answers), len(slow.answers)
        dying.is_holding = True  # what it was asked is lost
        slow.latency_s = 1.0
        answers = serving.sample(wanted, PLAIN)
        first = next(answers)
        while not dying.held:
            time.sleep(0.01)
        dying.is_down, dying.is_holding = True, False
        together = ordered([first, *answers])
    assert together == alone
    assert [line.split(": ")[0] for line in notes] == [f"{dead_url(serving, notes)} is left out of this step"]
    assert len(dying.answers) == proved[0]
    assert len(slow.answers) - proved[1] < 5 < len(well.answers)


def dead_url(serving: ServedPolicy, notes: Sequence[str]) -> str:
    (url,) = {line.split(" ")[0] for line in notes} - {endpoint.url for endpoint in serving.pool.endpoints}
    return url


@pytest.mark.slow
def test_no_more_requests_are_under_way_than_a_server_may_have(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    for concurrency in (1, 3):
        server = CompletionsServer(bench, policy, latency_s=0.02)
        folder = tmp_path / str(concurrency)
        folder.mkdir()
        with served(bench, policy, folder, server, concurrency=concurrency) as serving:
            list(serving.sample(draws(bench, 9), PLAIN))
        assert server.most_at_once == concurrency


def test_answers_that_wait_to_be_taken_hold_back_further_requests(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    server = CompletionsServer(bench, policy)
    with served(bench, policy, tmp_path, server, concurrency=2) as serving:
        proved = server.requests
        answers = serving.sample(draws(bench, 9), PLAIN)
        next(answers)
        assert server.requests - proved <= 2
        answers.close()


@pytest.mark.slow
def test_retry_after_is_waited_for(bench: Workbench, policy: PolicyFiles, tmp_path: Path) -> None:
    server = CompletionsServer(bench, policy, retry_after_s=1)
    with served(bench, policy, tmp_path, server) as serving:
        before = server.requests
        server.faults = Faults(0.5, ("too_many_requests",), seed=first_seed_with_fault_at(before))
        began = time.monotonic()
        assert len(list(serving.sample(draws(bench, 1), PLAIN))) == 3
    assert time.monotonic() - began >= 1
    assert server.requests == before + 2


def first_seed_with_fault_at(number: int) -> int:
    """Of a request, and not of the one after it."""
    seeds = (seed for seed in range(100))
    return next(
        seed
        for seed in seeds
        if Faults(0.5, ("x",), seed).at(number) is not None and Faults(0.5, ("x",), seed).at(number + 1) is None
    )
