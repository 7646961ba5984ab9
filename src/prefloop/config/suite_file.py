"""A suite as a file: which questions, how they are answered, who judges, and which table is made of it."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from prefloop.config.base import Config, is_mapping
from prefloop.errors import RecipeError, did_you_mean

Table = Literal["win_rates", "ratings", "preferences", "battles"]
JudgeForm = Literal["mt_bench", "arena_hard", "alpaca_eval"]
Turns = Annotated[int, Field(ge=1, le=2)]

ENDINGS = (".yaml", ".yml")


class SuiteFile(Config):
    """A suite. What it says of questions and answers holds where an evaluate step says nothing of its own."""

    title: str = ""
    prompts: str | None = None
    """A shipped set, a file or directory of rows (beside the suite's own file), or `org/name@revision`; None: whoever
    uses the suite names it."""
    format: str | None = None
    """Name of the format of its rows; None recognises it."""
    references: str | None = None
    """A file of answers that judges take for good ones, by the questions' ids."""
    turns: Turns | None = None
    """Turns of a question: the second is asked after the policy's own answer to the first."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Of all answers."""
    temperatures: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Of answers to questions of these categories."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens."""
    num_samples: Annotated[int, Field(ge=1)] | None = None
    """Answers a question."""
    num_beams: Annotated[int, Field(ge=1)] | None = None
    """Beams of a search for the likeliest answers, at temperature 0."""
    best_of: Annotated[int, Field(ge=1)] | None = None
    """Answers that are sampled for each one that is evaluated, which the judge chooses."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Questions that are taken; None takes all."""
    pool: dict[str, str] | None = None
    """Opponents by name: files with their answers. `prefloop evaluate run` makes such files, and takes models too."""
    judge: dict[str, JsonValue] | None = None
    """Who judges, by `type`, as in a recipe."""
    compares: bool = False
    """The judge is asked about two answers at a time, ours and an opponent's, in both orders, instead of about each
    alone; of second turns about both conversations from the first question on. Not for ratings."""
    judge_form: JudgeForm | None = None
    """What a language model is asked that judges outside of the program: `judge_requests.jsonl` holds it."""
    table: Table = "win_rates"
    """What is made of judged answers: win rates against each opponent; mean ratings by turn and category; AlpacaEval's
    leaderboard row against the first opponent; Bradley-Terry scores of all."""

    @model_validator(mode="after")
    def _can_compare(self) -> "SuiteFile":
        if self.compares and self.table == "ratings":
            raise ValueError("compares is of two answers, and the table is of ratings of one: take another table")
        require_choice(self.best_of or 1, self.turns or 1, self.num_beams or 1, compares=self.compares)
        return self


def require_choice(best_of: int, turns: int, num_beams: int, *, compares: bool) -> None:
    """The best of several can be had where several are drawn, and nothing follows the others (ValueError)."""
    if best_of > 1 and turns == 2:
        raise ValueError("best_of is for one turn, but turns is 2, and second turns follow answers that nobody chose")
    if best_of > 1 and compares:
        raise ValueError("best_of needs a judge that scores single answers, but compares is true: keep one of them")
    if best_of > 1 and num_beams > 1:
        raise ValueError("best_of chooses among answers that are drawn, and num_beams draws none: keep one of them")


OF_A_STEP = (
    "prompts",
    "format",
    "references",
    "turns",
    "temperature",
    "temperatures",
    "max_new_tokens",
    "num_samples",
    "num_beams",
    "best_of",
    "count",
    "pool",
    "judge",
    "compares",
)
"""Fields that an evaluate step has as well."""


def shipped_suites() -> list[str]:
    """Names of the suites that come with the package."""
    entries = (entry.name for entry in files("prefloop.suites").iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))


def read_suite(spec: str) -> SuiteFile:
    """A suite by its file, by a shipped name, or of nothing but the prompt set that is named.

    Raises:
        RecipeError: the file is no suite.
    """
    if spec in shipped_suites():
        return _checked((files("prefloop.suites") / f"{spec}.yaml").read_text(encoding="utf-8"), f"suite {spec}", None)
    if not spec.endswith(ENDINGS):
        return SuiteFile(prompts=spec)
    path = Path(spec).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = did_you_mean(spec, shipped_suites())
        raise RecipeError(f"suite {spec}: cannot be read: {error.strerror}. {known}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"suite {spec}: not UTF-8 text at byte {error.start}. Is this a suite?") from None
    return _checked(text, f"suite {spec}", path.parent)


def of_step(suite: SuiteFile) -> dict[str, Any]:
    """What a suite says that an evaluate step has as well."""
    said = suite.model_dump(mode="json", exclude_none=True)
    return {name: said[name] for name in OF_A_STEP if name in said}


def suite_with(suite: SuiteFile, changes: Mapping[str, Any], where: str) -> SuiteFile:
    """A suite with other values for some of its settings.

    Raises:
        RecipeError: one is no setting of a suite, or cannot have this value.
    """
    return _validated({**suite.model_dump(exclude_none=True), **changes}, where)


def _checked(text: str, where: str, folder: Path | None) -> SuiteFile:
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not is_mapping(raw):
        raise RecipeError(f"{where}: found {type(raw).__name__}, expected a mapping, e.g. `prompts: questions.jsonl`.")
    suite = _validated(raw, where)
    return suite if folder is None else _beside(suite, folder)


def _validated(raw: Mapping[str, Any], where: str) -> SuiteFile:
    judge = raw.get("judge")
    try:
        return SuiteFile.model_validate({**raw, "judge": {"type": judge}} if isinstance(judge, str) else raw)
    except ValidationError as error:
        found = error.errors()[0]
        key = ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: {key} is not a setting. {did_you_mean(key, SuiteFile.model_fields)}") from None
        why = found["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {key}: {why}, found {found['input']!r}." if key else f"{where}: {why}.") from None


def _beside(suite: SuiteFile, folder: Path) -> SuiteFile:
    """Files that a suite names lie beside it, where there are any of these names."""

    def found(name: str) -> str:
        return str(folder / name) if (folder / name).exists() else name

    moved: Mapping[str, Any] = {
        **{name: found(value) for name in ("prompts", "references") if (value := getattr(suite, name)) is not None},
        **({} if suite.pool is None else {"pool": {name: found(value) for name, value in suite.pool.items()}}),
    }
    return suite.model_copy(update=dict(moved))
