"""What the rows of every format become."""

import json
from typing import Any

import pytest

from prefloop.data.formats import find_format, formats
from prefloop.data.given import Given
from prefloop.data.problems import RowRefused
from prefloop.errors import DataError

PLACE = "pairs.jsonl:1"
ASKED = "How are you?"
TURN = {"role": "user", "content": ASKED}
PAIR = {"prompt": ASKED, "chosen": "Fine.", "rejected": "Go away."}


def dialogue(answer: str) -> list[dict[str, str]]:
    return [TURN, {"role": "assistant", "content": answer}]


def read(name: str, **columns: Any) -> Given:
    return find_format(name, "test").read(columns, PLACE)


def said(given: Given) -> list[tuple[str, str, list[str], tuple[float | None, ...]]]:
    """Judgments, with the texts that they speak of."""
    texts = {response.response_id: response.text for response in given.responses}
    return [(one.kind, one.aspect, [texts[subject] for subject in one.subjects], one.values) for one in given.judgments]


def refusal(name: str, **columns: Any) -> str:
    with pytest.raises(RowRefused) as refused:
        read(name, **columns)
    return str(refused.value)


@pytest.mark.parametrize("name", formats())
def test_the_example_of_a_format_reads(name: str) -> None:
    one = formats()[name]
    given = one.read(json.loads(one.example), PLACE)
    assert given.prompt.messages[-1].role in {"user", "tool"}
    assert given.prompt.source == PLACE
    assert {judgment.judge for judgment in given.judgments} <= {"dataset:pairs", "human:ann"}


@pytest.mark.parametrize("name", formats())
def test_a_row_without_one_of_its_columns_is_refused(name: str) -> None:
    one = formats()[name]
    row = json.loads(one.example)
    for column in one.columns:
        with pytest.raises(RowRefused):
            one.read({key: value for key, value in row.items() if key != column}, PLACE)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("trl_preference", {"prompt": [TURN], "chosen": dialogue("Fine.")[1:], "rejected": dialogue("Go away.")[1:]}),
        ("trl_preference_text", PAIR),
        ("trl_preference_implicit", {"chosen": dialogue("Fine."), "rejected": dialogue("Go away.")}),
        ("trl_preference_implicit_text", {"chosen": f"{ASKED} Fine.", "rejected": f"{ASKED} Go away."}),
        ("ultrafeedback_binarized", {"prompt": ASKED, "chosen": dialogue("Fine."), "rejected": dialogue("Go away.")}),
        (
            "hh",
            {
                "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: Fine.",
                "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: Go away.",
            },
        ),
        ("hh_prompt", {**PAIR, "prompt": f"\n\nHuman: {ASKED}\n\nAssistant:"}),
        ("alpaca_preference", {"instruction": "How", "input": "are you?", "chosen": "Fine.", "rejected": "Go away."}),
        (
            "sharegpt_preference",
            {
                "conversations": [{"from": "human", "value": ASKED}],
                "chosen": {"from": "gpt", "value": "Fine."},
                "rejected": {"from": "gpt", "value": "Go away."},
            },
        ),
        ("axolotl_chat", {"messages": [TURN], "chosen": dialogue("Fine.")[1], "rejected": dialogue("Go away.")[1]}),
        ("axolotl_question", {"question": ASKED, "chosen": "Fine.", "rejected": "Go away."}),
        ("axolotl_question", {"input": ASKED, "chosen": "Fine.", "rejected": "Go away."}),
        ("axolotl_argilla", {"instruction": ASKED, "chosen_response": "Fine.", "rejected_response": "Go away."}),
        ("swift_preference", {"messages": dialogue("Fine."), "rejected_response": "Go away."}),
        ("swift_preference_messages", {"messages": dialogue("Fine."), "rejected_messages": dialogue("Go away.")}),
        ("swift_query_preference", {"query": ASKED, "response": "Fine.", "rejected_response": "Go away."}),
        ("two_outputs", {"instruction": ASKED, "output_1": "Fine.", "output_2": "Go away.", "preference": 1}),
    ],
)
def test_a_pair_is_the_same_in_every_format(name: str, columns: dict[str, Any]) -> None:
    given = read(name, **columns)
    if name == "alpaca_preference":
        assert given.prompt.messages[0].content == "How\nare you?"
    else:
        assert given.model_copy(update={"row_id": None}) == read("trl_preference_text", **PAIR)
    assert said(given) == [("preference", "overall", ["Fine.", "Go away."], (1.0,))]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("score_chosen", "score_rejected"),
        ("chosen_score", "rejected_score"),
        ("chosen_rating", "rejected_rating"),
        ("chosen-rating", "rejected-rating"),
        ("chosen_avg_rating", "rejected_avg_rating"),
    ],
)
def test_scores_are_kept_under_every_name(chosen: str, rejected: str) -> None:
    given = read("trl_preference_text", **PAIR, **{chosen: 8, rejected: 2.5})
    assert said(given)[1:] == [("score", "overall", ["Fine.", "Go away."], (8.0, 2.5))]


def test_everything_that_stands_beside_a_pair_is_kept() -> None:
    given = read(
        "trl_preference_text",
        **PAIR,
        id=7,
        system="Be polite.",
        answer=12,
        tools=[{"name": "clock"}],
        weight=0.5,
        margin=-1,
        prob_chosen_wins=0.8,
        chosen_model="large",
    )
    assert given.row_id == "7"
    assert [(message.role, message.content) for message in given.prompt.messages] == [
        ("system", "Be polite."),
        ("user", ASKED),
    ]
    assert given.prompt.answer == "12"
    assert given.prompt.tools == ({"name": "clock"},)
    assert given.judgments[0].values == (0.8,)
    assert given.judgments[0].numbers == {"weight": 0.5, "margin": -1.0}
    assert [response.policy for response in given.responses] == ["large", ""]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"score_chosen": 1.0}, "missing_field: score_rejected is not there, but the other answer has a score"),
        ({"score_chosen": "high", "score_rejected": 1}, "wrong_type: score_chosen is 'high', expected a number"),
        ({"chosen_score": True, "rejected_score": 1}, "wrong_type: chosen_score is True, expected a number"),
        ({"chosen_score": 1, "rejected_score": float("nan")}, "not_finite: rejected_score is nan"),
        ({"prob_chosen_wins": 1.2}, "out_of_range: prob_chosen_wins is 1.2, expected a number from 0 to 1"),
        ({"weight": 0}, "out_of_range: weight is 0, expected a number above 0"),
        ({"margin": float("inf")}, "not_finite: margin is inf"),
        ({"tools": "clock"}, "wrong_type: tools is a text, but no JSON: Expecting value"),
        ({"tools": {"name": "clock"}}, "wrong_type: tools is {'name': 'clock'}, expected a list of mappings"),
        ({"answer": [1]}, "wrong_type: answer is [1], expected a number"),
        ({"rejected": None}, "missing_field: rejected is not there"),
        ({"chosen": "\t"}, "empty_text: chosen is '\\t'"),
        ({"prompt": dialogue("Fine.")}, "ends_with_answer: prompt ends with an assistant turn"),
        (
            {"prompt": [{"role": "system", "content": "a"}, TURN], "system": "b"},
            "two_system_turns: the column system, and a system turn among the messages",
        ),
    ],
)
def test_what_is_wrong_beside_a_pair_is_refused(columns: dict[str, Any], expected: str) -> None:
    assert refusal("trl_preference_text", **{**PAIR, **columns}) == expected


def test_the_implicit_prompt_of_texts_ends_with_a_whole_word() -> None:
    given = read("trl_preference_implicit_text", chosen="The sky is blue.", rejected="The sky is black.")
    assert given.prompt.messages[0].content == "The sky is"
    assert [response.text for response in given.responses] == ["blue.", "black."]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("Blue sky.", "Black sky.", "different_prompts: chosen and rejected do not begin with the same words"),
        ("The sky.", "The sky.", "identical: chosen and rejected are the same text"),
        ("The sky is blue.", "The sky is ", "empty_text: rejected is ''"),
    ],
)
def test_texts_without_a_common_beginning_are_refused(chosen: str, rejected: str, expected: str) -> None:
    assert refusal("trl_preference_implicit_text", chosen=chosen, rejected=rejected) == expected


@pytest.mark.parametrize("name", ["trl_preference_implicit", "ultrafeedback_binarized"])
def test_dialogues_that_part_before_their_last_turn_have_different_prompts(name: str) -> None:
    other = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "Nobody."}]
    assert refusal(name, prompt=ASKED, chosen=dialogue("Fine."), rejected=other) == (
        "different_prompts: chosen and rejected differ before their last turn"
    )


def test_a_prompt_that_the_conversations_do_not_hold_is_a_different_one() -> None:
    columns = {"prompt": "Who are you?", "chosen": dialogue("Fine."), "rejected": dialogue("Go away.")}
    assert refusal("ultrafeedback_binarized", **columns) == (
        "different_prompts: prompt stands nowhere in chosen and rejected"
    )


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("trl_unpaired", {"prompt": ASKED, "completion": "Fine.", "label": False}),
        ("trl_unpaired", {"question": ASKED, "completion": "Fine.", "label": 0}),
        ("alpaca_unpaired", {"instruction": ASKED, "output": "Fine.", "kto_tag": False}),
        ("sharegpt_unpaired", {"conversations": dialogue("Fine."), "kto_tag": False}),
        ("swift_unpaired", {"messages": dialogue("Fine."), "label": False}),
    ],
)
def test_a_labelled_answer_is_the_same_in_every_format(name: str, columns: dict[str, Any]) -> None:
    given = read(name, **columns)
    assert given.prompt.messages[-1].content == ASKED
    assert said(given) == [("label", "overall", ["Fine."], (0.0,))]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("trl_completion", {"prompt": ASKED, "completion": "Fine."}),
        ("trl_messages", {"messages": dialogue("Fine.")}),
        ("alpaca", {"instruction": ASKED, "input": "", "output": "Fine."}),
        ("sharegpt", {"conversations": dialogue("Fine.")}),
        ("swift_query", {"query": ASKED, "response": "Fine."}),
    ],
)
def test_an_answer_without_a_verdict_is_the_same_in_every_format(name: str, columns: dict[str, Any]) -> None:
    given = read(name, **columns)
    assert given.prompt.messages[-1].content == ASKED
    assert [response.text for response in given.responses] == ["Fine."]
    assert given.judgments == ()


def test_earlier_turns_of_alpaca_stand_before_the_instruction() -> None:
    given = read("alpaca", instruction="And you?", output="Well.", history=[["Hello.", "Hi."]], system="Be brief.")
    assert [(message.role, message.content) for message in given.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hi."),
        ("user", "And you?"),
    ]
    assert refusal("alpaca", instruction="And you?", output="Well.", history=[["Hello."]]) == (
        "wrong_type: history[0] is ['Hello.'], expected a pair of texts"
    )


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (
            "nemo_rl",
            {
                "context": [TURN],
                "completions": [
                    {"rank": 0, "completion": dialogue("Fine.")[1:]},
                    {"rank": 2, "completion": dialogue("Go away.")[1:]},
                ],
            },
        ),
        ("nectar", {"prompt": ASKED, "answers": [{"answer": "Fine.", "rank": 1}, {"answer": "Go away.", "rank": 7}]}),
        ("ranked_responses", {"prompt": ASKED, "responses": ["Fine.", "Go away."], "ranks": [1, 2]}),
        ("ranked_responses", {"instruction": ASKED, "generations": ["Fine.", "Go away."], "ranking": [3, 4]}),
    ],
)
def test_ranks_count_from_one_in_every_format(name: str, columns: dict[str, Any]) -> None:
    given = read(name, **columns)
    assert given.prompt.messages[-1].content == ASKED
    assert said(given) == [("ranking", "overall", ["Fine.", "Go away."], (1.0, 2.0))]


def test_equal_ranks_stay_equal() -> None:
    given = read("ranked_responses", prompt=ASKED, responses=["a", "b", "c"], ranks=[5, 2, 5])
    assert said(given)[0][3] == (2.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("rated_responses", {"prompt": ASKED, "responses": ["Fine.", "Go away."], "scores": [8, None]}),
        ("rated_responses", {"instruction": ASKED, "generations": ["Fine.", "Go away."], "ratings": [8, None]}),
        (
            "ultrafeedback",
            {
                "instruction": ASKED,
                "completions": [{"response": "Fine.", "overall_score": 8}, {"response": "Go away."}],
            },
        ),
    ],
)
def test_an_answer_without_a_rating_has_none(name: str, columns: dict[str, Any]) -> None:
    assert said(read(name, **columns)) == [("score", "overall", ["Fine.", "Go away."], (8.0, None))]


def test_ratings_by_aspect_are_judgments_of_their_aspect() -> None:
    given = read(
        "ultrafeedback",
        instruction=ASKED,
        completions=[
            {
                "model": "large",
                "response": "Fine.",
                "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "N/A"}},
                "fine-grained_score": 4.5,
                "overall_score": 9,
            },
            {"response": "Go away.", "annotations": {"honesty": {"Rating": "1"}}, "overall_score": 1},
        ],
    )
    texts = ["Fine.", "Go away."]
    assert said(given) == [
        ("score", "helpfulness", texts, (5.0, None)),
        ("score", "overall", texts, (9.0, 1.0)),
        ("score", "fine_grained", texts, (4.5, None)),
        ("score", "honesty", texts, (None, 1.0)),
    ]
    assert [response.policy for response in given.responses] == ["large", ""]


def test_equal_answers_of_two_models_are_one_answer_with_both_ratings() -> None:
    given = read("rated_responses", prompt=ASKED, responses=["Fine.", "Fine."], scores=[3, 5], models=["a", "b"])
    assert len(given.responses) == 1
    assert said(given) == [("score", "overall", ["Fine.", "Fine."], (3.0, 5.0))]


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        (
            "rated_responses",
            {"prompt": ASKED, "responses": ["a", "b"], "scores": [1]},
            "wrong_type: scores is [1], expected one value for each of 2 answers",
        ),
        (
            "rated_responses",
            {"prompt": ASKED, "responses": ["a", " "], "scores": [1, 2]},
            "empty_text: responses[1] is ' '",
        ),
        (
            "scored_responses",
            {"prompt": ASKED, "responses": [{"text": "a"}]},
            "missing_field: responses[0] has no score (score, rating, reward)",
        ),
        (
            "two_outputs",
            {"instruction": ASKED, "output_1": "a", "output_2": "b", "preference": 3},
            "out_of_range: preference is 3.0, expected a number from 1 to 2, or 0 for a tie",
        ),
        (
            "trl_unpaired",
            {"prompt": ASKED, "completion": "a", "label": 2},
            "wrong_type: label is 2, expected true or false",
        ),
        (
            "summaries",
            {"info": {"post": "x"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2},
            "out_of_range: choice is 2.0, expected 0 or 1, the number of the better summary",
        ),
        (
            "summaries",
            {"info": {"post": "x"}, "summaries": [{"text": "a"}], "choice": 0},
            "wrong_type: summaries has 1 entries, expected two",
        ),
        (
            "arc",
            {"question": ASKED, "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "E"},
            "out_of_range: answerKey is 'E', expected one of A, B",
        ),
        (
            "hellaswag",
            {"ctx": ASKED, "endings": ["a", "b"], "label": "2"},
            "out_of_range: label is 2, expected a number from 0 to 1",
        ),
        ("prefloop", {"prompt": {"messages": []}}, "wrong_type: prompt.prompt_id: Field required"),
    ],
)
def test_rows_of_several_answers_that_are_wrong_are_refused(name: str, columns: dict[str, Any], expected: str) -> None:
    assert refusal(name, **columns) == expected


def test_a_comparison_of_summaries_asks_for_one_as_the_paper_does() -> None:
    summaries = [{"text": " Slept on a train.", "policy": "sup1"}, {"text": " Trains.", "policy": "ref"}]
    info = {"subreddit": "tifu", "title": "A late train", "post": "I missed my stop.", "article": None}
    of_post = read("summaries", info=info, summaries=summaries, choice=1)
    of_news = read("summaries", info={"article": "It rained."}, summaries=summaries, choice=0)

    assert of_post.prompt.messages[0].content == (
        "SUBREDDIT: r/tifu\n\nTITLE: A late train\n\nPOST: I missed my stop.\n\nTL;DR:"
    )
    assert said(of_post) == [("preference", "overall", ["Slept on a train.", "Trains."], (0.0,))]
    assert of_news.prompt.messages[0].content == "Article: It rained.\n\nTL;DR:"
    assert said(of_news)[0][3] == (1.0,)


@pytest.mark.parametrize(("preference", "first_wins"), [(1, 1.0), (2, 0.0), (1.5, 0.5), (0, 0.5), (1.25, 0.75)])
def test_the_number_of_the_better_output_is_a_preference(preference: float, first_wins: float) -> None:
    given = read("two_outputs", prompt=ASKED, output_1="a", output_2="b", label=preference)
    assert said(given) == [("preference", "overall", ["a", "b"], (first_wins,))]


def test_an_example_of_a_run_is_a_pair_without_its_tokens() -> None:
    row = json.loads(formats()["prefloop_examples"].example)
    row["members"][1] |= {"token_ids": [1, 2], "finished": False}
    given = read("prefloop_examples", **row)
    assert said(given) == [
        ("preference", "overall", ["Fine, thanks.", "Go away."], (1.0,)),
        ("score", "overall", ["Fine, thanks.", "Go away."], (8.5, 2.0)),
    ]
    assert given.judgments[0].numbers == {"weight": 0.5}
    assert [(response.token_ids, response.finish_reason) for response in given.responses] == [
        (None, "given"),
        (None, "length"),
    ]


def test_a_gold_answer_may_be_a_number() -> None:
    assert read("question_answer", question="2 + 3?", answer=5).prompt.answer == "5"
    assert read("prompts", prompt="2 + 3?", ground_truth="5").prompt.answer == "5"


def test_an_unknown_format_names_the_closest() -> None:
    with pytest.raises(
        DataError, match=r"^pairs: format 'trl_preferences' is not known. Did you mean 'trl_preference'"
    ):
        find_format("trl_preferences", "pairs")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (
            "arc",
            {"question": ASKED, "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "B"},
        ),
        (
            "arc",
            {"question": ASKED, "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "2"},
        ),
        ("hellaswag", {"ctx": ASKED, "endings": ["a", "b", "c"], "label": "1"}),
        ("hellaswag", {"ctx": ASKED, "endings": ["a", "b", "c"], "label": 1}),
    ],
)
def test_choices_are_answers_of_which_one_has_label_1(name: str, columns: dict[str, Any]) -> None:
    given = read(name, **columns)
    assert given.prompt.messages[-1].content == ASKED
    assert said(given) == [("label", "overall", ["a", "b", "c"], (0.0, 1.0, 0.0))]
