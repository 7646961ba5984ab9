"""prefloop: align open-weight language models with preferences, and prove that it worked.

    import prefloop

    answers = prefloop.sample(model, prompts, tokenizer=tokenizer, num_samples=4)
    pairs = prefloop.pair(prefloop.judge(answers, "vader"))
    trained = prefloop.train(model, tokenizer, pairs, objective="dpo", beta=0.1)

The functions come from `prefloop.api` when they are first asked for: importing prefloop loads neither torch nor
transformers. docs/python.md shows them all.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefloop.api import TRL_NAMES, Ran, Trained, evaluate, judge, pair, run, sample, train

__version__ = "0.1.0"
__all__ = ["TRL_NAMES", "Ran", "Trained", "evaluate", "judge", "pair", "run", "sample", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prefloop' has no attribute '{name}'")
    from prefloop import api  # noqa: PLC0415  # importing prefloop stays cheap

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
