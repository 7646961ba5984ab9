"""Servers that sample from something else, serve other weights, or answer in every wrong way: none of it is silent."""

import json
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import torch

from prefloop.errors import RecipeError, ResumableError
from prefloop.policy import PolicyFiles, Workbench
from prefloop.sampling import (
    KeptAnswers,
    Patience,
    Pool,
    Restart,
    SamplingSettings,
    ServerPolicies,
)
from prefloop.sampling.proof import is_nearer
from prefloop.sampling.server import ServedPolicy
from prefloop.testing import CompletionsServer, Faults

from .conftest import PLAIN, QUICK, draws

RESTART = """
import json, sys, urllib.request
names = ("model_path", "lora_path")
body = json.dumps(dict(zip(names, sys.argv[2:]))).encode()
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/restart", body), timeout=10).read()
print("restarted")
"""


def with_head_times(factor: torch.Tensor | float, bench: Workbench, directory: Path) -> PolicyFiles:
    """The same model with the logit of every token multiplied, by one factor or each by its own."""
    model = bench.base(bench.source.directory)
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.mul_(factor)
        model.save_pretrained(directory)
        head.weight.copy_(before)
    for file in bench.source.directory.iterdir():
        if not (directory / file.name).exists():
            (directory / file.name).write_bytes(file.read_bytes())
    return PolicyFiles(directory.name, directory)


@pytest.fixture(scope="module")
def trained(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> PolicyFiles:
    """Other weights, by 0.1 nats a token or so, with the same greedy answers."""
    return with_head_times(1.5, bench, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def turned(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> PolicyFiles:
    """Other weights with other greedy answers: every second token has half the logit."""
    factors = torch.ones(bench.base(bench.source.directory).config.get_text_config().vocab_size, 1)
    factors[::2] = 0.5
    return with_head_times(factors, bench, tmp_path_factory.mktemp("turned"))


@contextmanager
def served(
    bench: Workbench,
    policy: PolicyFiles,
    folder: Path,
    server: CompletionsServer,
    *,
    restart: bool = False,
    patience: Patience = QUICK,
    headers: dict[str, str] | None = None,
    before: PolicyFiles | None = None,
    notes: list[str] | None = None,
) -> Generator[ServedPolicy, None, None]:
    with ExitStack() as stack:
        url = stack.enter_context(server.running())
        kept = stack.enter_context(closing(KeptAnswers(folder / "answers.sqlite")))
        command = (sys.executable, "-c", RESTART, url.removesuffix("/v1"))
        sampler = ServerPolicies(
            lambda: Pool([url], 4, patience, headers or {}),
            "tiny",
            bench,
            kept,
            (notes if notes is not None else []).append,
            Restart(command, folder / "restart.log") if restart else None,
            before,
        )
        yield stack.enter_context(sampler.serving(policy))


def test_a_server_is_restarted_with_other_weights_and_waited_for_and_proved(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path
) -> None:
    server = CompletionsServer(bench, policy, loading_s=0.3)
    with served(bench, trained, tmp_path, server, restart=True, before=policy) as serving:
        assert server.policy.directory == trained.directory
        assert len(list(serving.sample(draws(bench, 1, 2), PLAIN))) == 2
    assert (tmp_path / "restart.log").read_text(encoding="utf-8") == "restarted\n"


def test_a_server_that_serves_the_policy_is_not_restarted(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    with served(bench, policy, tmp_path, CompletionsServer(bench, policy), restart=True):
        assert not (tmp_path / "restart.log").exists()


def test_a_server_whose_answers_may_be_of_the_round_before_is_restarted_and_what_they_do_not_tell_is_said(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path
) -> None:
    """Both policies take the same tokens greedily, and the server gives no log-probabilities."""
    server, notes = CompletionsServer(bench, policy, lacks=frozenset({"logprobs"})), list[str]()
    with served(bench, trained, tmp_path, server, restart=True, before=policy, notes=notes) as serving:
        assert server.policy.directory == trained.directory
        url = serving.pool.endpoints[0].url
    assert f"{url}: two greedy answers do not tell the policy from the policy of the round before" in notes


@pytest.mark.parametrize("lacks", [("logprobs",), ("logprobs", "return_token_ids", "prompt_ids")])
def test_without_log_probabilities_other_weights_are_found_by_their_greedy_answers(
    bench: Workbench, policy: PolicyFiles, turned: PolicyFiles, tmp_path: Path, lacks: tuple[str, ...]
) -> None:
    """With tokens of the server's own, and with those of its text."""
    server = CompletionsServer(bench, policy, lacks=frozenset(lacks), keeps_weights=True)
    with (
        pytest.raises(ResumableError, match=r"its greedy answers are not those of the policy: one token is \S+ nats"),
        served(bench, turned, tmp_path, server, before=policy),
    ):
        pass


@pytest.mark.parametrize("way", ["restart", "update_weights_from_disk"])
def test_a_server_that_says_it_took_weights_and_did_not_stops_the_run(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path, way: str
) -> None:
    server = CompletionsServer(bench, policy, lacks=frozenset(), keeps_weights=True)
    with (
        pytest.raises(ResumableError, match=r"so it serves other weights, such as those of the round before\. Serve"),
        served(bench, trained, tmp_path, server, restart=way == "restart"),
    ):
        pass


def test_a_restart_that_fails_says_its_last_words(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path
) -> None:
    said = r"sampler\.restart ended with 3: no GPU is free\. It must leave the servers running and end"
    server = CompletionsServer(bench, policy)
    failing = Restart((sys.executable, "-c", "print('no GPU is free'); raise SystemExit(3)"), tmp_path / "restart.log")
    with server.running() as url, closing(KeptAnswers(tmp_path / "answers.sqlite")) as kept:
        sampler = ServerPolicies(lambda: Pool([url], 4, QUICK), "tiny", bench, kept, [].append, failing)
        with pytest.raises(ResumableError, match=said), sampler.serving(trained):
            pass
    missing = Restart(("no-such-program",), tmp_path / "restart.log")
    with server.running() as url, closing(KeptAnswers(tmp_path / "answers.sqlite")) as kept:
        sampler = ServerPolicies(lambda: Pool([url], 4, QUICK), "tiny", bench, kept, [].append, missing)
        said = r"sampler\.restart cannot be run: .*no-such-program"
        with pytest.raises(RecipeError, match=said), sampler.serving(trained):
            pass


def test_what_a_server_takes_by_itself_where_a_field_is_left_out_is_undone(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    """llama.cpp samples from 40 tokens unless it is told otherwise; the answers are those of a server that does not."""
    found: list[list[tuple[int, ...]]] = []
    for number, defaults in enumerate(({}, {"top_k": 2, "min_p": 0.05, "repetition_penalty": 1.3, "top_p": 0.5})):
        folder = tmp_path / str(number)
        folder.mkdir()
        with served(bench, policy, folder, CompletionsServer(bench, policy, defaults=defaults)) as serving:
            answers = serving.sample(draws(bench, 2, 2), PLAIN)
            found.append([a.token_ids for a in sorted(answers, key=lambda a: (a.draw.prompt_id, a.draw.index))])
    assert found[0] == found[1]


@pytest.mark.parametrize("how", ["likeliest", "greedy"])
def test_a_server_that_never_samples_unlikely_tokens_is_an_error(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path, how: str
) -> None:
    ignored = {"likeliest": frozenset({"top_k"}), "greedy": frozenset({"temperature"})}[how]
    defaults = {"likeliest": {"top_k": 40}, "greedy": {"temperature": 0}}[how]
    server = CompletionsServer(bench, policy, lacks=ignored, defaults=defaults)
    with (
        pytest.raises(RecipeError, match=r"/v1: samples the likeliest tokens alone, also at a temperature of 100"),
        served(bench, policy, tmp_path, server),
    ):
        pass


def test_a_server_whose_context_is_too_small_is_an_error(bench: Workbench, policy: PolicyFiles, tmp_path: Path) -> None:
    server = CompletionsServer(bench, policy)
    with served(bench, policy, tmp_path, server) as serving:
        server.context = len(draws(bench, 2, 2)[0].prompt_ids) + 6
        with pytest.raises(RecipeError, match=r"an answer was cut after 6 tokens where 40 were allowed\. Give the"):
            list(serving.sample(draws(bench, 1, 8), SamplingSettings(100.0, 1.0, 40)))
        server.context = 8
        with pytest.raises(RecipeError, match=r"the server read 7 tokens where there are \d+\. It cuts prompts or"):
            list(serving.sample(draws(bench, 1, 2), PLAIN))


def test_answers_whose_eos_a_server_keeps_for_itself_have_one(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    with served(bench, policy, tmp_path, CompletionsServer(bench, policy, keeps_eos=True)) as serving:
        answers = list(serving.sample(draws(bench, 3, 2), PLAIN))
    assert {"stop"} <= {answer.finish_reason for answer in answers}
    assert all((a.token_ids[-1] in bench.codec.eos_ids) == (a.finish_reason == "stop") for a in answers)
    assert all((a.sum_logp is None) == (a.finish_reason == "stop") for a in answers)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("busy", "answered 429: later"),
        ("reset", ""),
        ("drip", "no answer within 0.5 s"),
        ("html", "answered 200 with no JSON: <!DOCTYPE html>"),
        ("huge", "an answer of more than"),
        ("wrong_model", "answered as another, but was proved as tiny"),
        ("error_object", "answered with no completion: {'message': 'the engine died'}"),
        ("garbage", "answered 200 with no JSON"),
    ],
)
def test_every_fault_is_said_when_it_does_not_go_away(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path, fault: str, said: str
) -> None:
    server = CompletionsServer(bench, policy)
    short = Patience(timeout_s=10.0, deadline_s=20.0, first_wait_s=0.002, longest_wait_s=0.02, failures=3)
    with served(bench, policy, tmp_path, server, patience=short) as serving:
        serving.pool.patience = Patience(0.5, 0.6, 0.002, 0.02, failures=1000)  # it is not proved again in between
        server.faults = Faults(1.0, (fault,))
        with pytest.raises(ResumableError, match=r"No usable answer within 0\.6 s") as error:
            list(serving.sample(draws(bench, 1, 2), PLAIN))
    assert said in str(error.value)


def test_a_server_that_was_away_and_comes_back_with_other_weights_is_not_asked(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path
) -> None:
    first, second = CompletionsServer(bench, policy), CompletionsServer(bench, policy)
    with ExitStack() as stack, closing(KeptAnswers(tmp_path / "answers.sqlite")) as kept:
        url = stack.enter_context(second.running())
        gone = ExitStack()
        other = gone.enter_context(first.running())
        sampler = ServerPolicies(lambda: Pool([other, url], 2, QUICK), "tiny", bench, kept, [].append)
        with sampler.serving(policy) as serving:
            first.is_down = True
            gone.close()
            first.policy, first.answers = trained, []
            answers = serving.sample(draws(bench, 6, 1), PLAIN)
            found = [next(answers)]
            first.is_down = False
            with first.running(int(other.rsplit(":", 1)[1].removesuffix("/v1"))):
                found += answers
                doubted = next(one for one in serving.pool.endpoints if one.url == other)
                assert doubted.is_doubted
                list(serving.sample(draws(bench, 12, 1), PLAIN))
                assert doubted.is_doubted
            assert len(found) == 6
        assert not [body for body in first.answers if json.loads(body)["max_tokens"] == 16 and '"seed"' in body]


class Mended(CompletionsServer):
    """Its faults end with a request."""

    faults_until: int = 0

    def delay(self) -> None:
        if self.requests > self.faults_until:
            self.faults = Faults()


@pytest.mark.parametrize("how", ["loads", "fails"])
def test_a_server_that_loads_or_fails_for_a_while_and_then_serves_other_weights_stops_the_run(
    bench: Workbench, policy: PolicyFiles, trained: PolicyFiles, tmp_path: Path, how: str
) -> None:
    server = Mended(bench, policy, loading_s=0.2)
    with served(bench, policy, tmp_path, server) as serving:
        server.answers.clear()
        if how == "loads":
            assert server.takes("restart", {"model_path": str(trained.directory)})
        else:
            server.policy, server.faults, server.faults_until = trained, Faults(1.0, ("error",)), server.requests + 3
        said = (
            r"/v1: was away, and came back with other weights\. Look after the server and give the same command again"
        )
        with pytest.raises(ResumableError, match=said):
            list(serving.sample(draws(bench, 1, 1), PLAIN))
    assert not [body for body in server.answers if '"seed"' in body]


def test_which_of_two_policies_a_server_serves_is_found_by_least_squares() -> None:
    ours = torch.linspace(-3, -1, 32, dtype=torch.float64)
    other = ours + 0.02 * torch.sin(torch.arange(32, dtype=torch.float64))
    noise = 0.002 * torch.cos(7 * torch.arange(32, dtype=torch.float64))
    assert is_nearer(ours + noise, ours, other) is False
    assert is_nearer(other + noise, ours, other) is True
    assert is_nearer((ours + other) / 2 + noise, ours, other) is None
    assert is_nearer(ours + 50 * noise, ours, ours + (other - ours) / 50) is None
    assert is_nearer(ours, ours, ours) is None


class Abreast(CompletionsServer):
    """Its completions wait until all calls that a pool may have under way are there."""

    abreast: threading.Barrier | None = None

    def delay(self) -> None:
        if self.abreast is not None:
            self.abreast.wait(60)


def test_a_pool_leaves_no_place_at_a_server_empty_while_calls_are_left(
    bench: Workbench, policy: PolicyFiles, tmp_path: Path
) -> None:
    """18 calls at three servers with two places each take three delays, not one more: a place left empty breaks it."""
    servers, passes = [Abreast(bench, policy) for _ in range(3)], list[int]()
    with ExitStack() as stack, closing(KeptAnswers(tmp_path / "answers.sqlite")) as kept:
        urls = [stack.enter_context(server.running()) for server in servers]
        sampler = ServerPolicies(lambda: Pool(urls, 2, QUICK), "tiny", bench, kept, [].append)
        with sampler.serving(policy) as serving:
            together = threading.Barrier(6, action=lambda: passes.append(1))
            for server in servers:
                server.abreast, server.most_at_once = together, 0
            assert len(list(serving.sample(draws(bench, 18, 1), PLAIN))) == 18
    assert len(passes) == 3
    assert [server.most_at_once for server in servers] == [2, 2, 2]
