"""Answers that were sampled before, so that every later step can be repeated without a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefloop.data import TURN, AnswersOnFile, answers_of, find_source, is_foreign, read_answers
from prefloop.errors import DataError
from prefloop.records import Prompt, Response, content_of, digest, read_records, shards_in

BUILTIN = "builtin:"
"""Before the name of a shipped set that holds answers."""


@dataclass(frozen=True)
class Replay:
    """Response records on file, found by their prompt and their index."""

    path: Path
    found: Mapping[tuple[str, int], tuple[Path, int]]
    """By prompt and index: the file, and where in it the line begins."""
    foreign: AnswersOnFile | None = None
    """The answers of another tool's file; `found` is empty then."""

    @classmethod
    def load(cls, file: str) -> "Replay":
        """The records of a file, or of all shards of a folder.

        Raises:
            DataError: there are none, or one is not a response.
        """
        if file.startswith(BUILTIN):
            source = find_source(file)
            return cls(Path(file), {}, answers_of(source.rows(), source.name))
        path = _existing(file)
        if path.is_file() and is_foreign(path):
            return cls(path, {}, read_answers(path))
        found: dict[tuple[str, int], tuple[Path, int]] = {}
        for part in shards_in(path) if path.is_dir() else [path]:
            begins = 0
            with part.open("rb") as lines:
                for response, line in zip(read_records(part, Response), lines, strict=True):
                    found[response.prompt_id, response.index] = part, begins
                    begins += len(line)
        if not found:
            raise DataError(f"sampler.file {file}: has no responses. Expected a sample step's folder or a file of it.")
        return cls(path, found)

    def of(self, prompts: Sequence[Prompt], num_samples: int, step: str) -> Iterator[Response]:
        """The answers to some prompts, in the order of the prompts and then of their index.

        Args:
            prompts: whose answers are wanted.
            num_samples: answers a prompt, of index 0 and up.
            step: which the answers are said to come from.

        Raises:
            DataError: the file lacks an answer.
        """
        if self.foreign is not None:
            yield from _of_foreign(self.foreign, prompts, num_samples, step)
            return
        for prompt in prompts:
            for index in range(num_samples):
                if (prompt.prompt_id, index) not in self.found:
                    has = sum(prompt_id == prompt.prompt_id for prompt_id, _ in self.found)
                    raise DataError(
                        f"sampler.file {self.path}: has {has} answers to prompt {prompt.prompt_id} "
                        f"({prompt.source or 'derived'}), expected {num_samples}, index 0 and up. Lower num_samples, "
                        "or replay samples of these prompts; each round's may be named as {by_round: [...]}."
                    )
                part, begins = self.found[prompt.prompt_id, index]
                with part.open("rb") as lines:
                    lines.seek(begins)
                    response = Response.model_validate_json(lines.readline())
                yield response.model_copy(update={"step": step, "root_id": prompt.root_id})


def _of_foreign(answers: AnswersOnFile, prompts: Sequence[Prompt], num_samples: int, step: str) -> Iterator[Response]:
    for prompt in prompts:
        turn = int((prompt.labels or {}).get(TURN, "1"))
        texts = [turns[turn - 1] for turns in answers.of(prompt) if len(turns) >= turn]
        if len(texts) < num_samples:
            raise DataError(
                f"sampler.file {answers.name}: has {len(texts)} answers to turn {turn} of "
                f"{prompt.source or prompt.prompt_id}, expected {num_samples}. Name a file with answers to this suite."
            )
        for index, text in enumerate(texts[:num_samples]):
            yield Response(
                response_id=digest([prompt.prompt_id, answers.policy, index, text])[:16],
                prompt_id=prompt.prompt_id,
                root_id=prompt.root_id,
                step=step,
                text=text,
                ids_from="text",
                finish_reason="given",
                policy=answers.policy,
                index=index,
            )


def replay_identity(file: str) -> str:
    """Identity of what a replay reads: its content, not its place.

    Raises:
        DataError: there is nothing to read.
    """
    if file.startswith(BUILTIN):
        return find_source(file).identity
    return digest(sorted(content_of(_existing(file)).values()))


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.exists():
        raise DataError(f"sampler.file {file}: there is no such file. Expected a sample step's folder or a file of it.")
    return path
