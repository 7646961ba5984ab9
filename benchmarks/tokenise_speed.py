"""How fast preference pairs become tokens, and how much memory it takes: a table of time and memory as it goes.

    python benchmarks/tokenise_speed.py --pairs 100000

Pairs are made on the way, of about 150 tokens of prompt and 150 of each answer; the tokenizer is SmolLM2's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prefloop.loop.machine import resident_memory
from prefloop.policy import ChatCodec, EncodingSettings, resolve_model
from prefloop.records import Example, Member, Message, Prompt
from prefloop.training import TokensOnDisk, write_tokens

WORDS = """
the of and to a in is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its about
than into them can only other time new some could these two may first then do any like my now over such our man me
even most made after also well being did many before must years through where much your way down should because
long each just state people those too mr how little good world make very year still see own work men day get here
old life both between under last never know same another while us off might great go come since against
""".split()  # noqa: SIM905
PROMPT_WORDS = 110
ANSWER_WORDS = 145


def examples(count: int) -> Iterator[Example]:
    """Pairs of random words in sentences of ten."""
    random = np.random.default_rng(0)
    for number in range(count):
        texts = [sentences(random, size) for size in (PROMPT_WORDS, ANSWER_WORDS, ANSWER_WORDS)]
        prompt = Prompt.of((Message(role="user", content=texts[0]),))
        members = tuple(
            Member(role=role, response_id=f"{role}-{number}", text=text)
            for role, text in zip(("chosen", "rejected"), texts[1:], strict=True)
        )
        yield Example(example_id=f"{number:08d}", prompt=prompt, members=members, why="random words")


def sentences(random: np.random.Generator, words: int) -> str:
    """So many words, more or less."""
    size = int(random.integers(words // 2, 3 * words // 2))
    drawn = [WORDS[index] for index in random.integers(len(WORDS), size=size)]
    return " ".join(" ".join(drawn[start : start + 10]).capitalize() + "." for start in range(0, len(drawn), 10))


def say(line: str) -> None:
    """One line of the table."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    count = parser.parse_args().pairs
    codec = ChatCodec.load(resolve_model("builtin:smollm2-135m-instruct").directory, {})
    made = time.perf_counter()
    for _ in examples(1000):
        pass
    made = (time.perf_counter() - made) * count / 1000
    begun, cpu = time.perf_counter(), time.process_time()
    say("| pairs | seconds | memory, MB |\n|---|---|---|")
    say(f"| 0 | 0 | {resident_memory() / 1e6:.0f} |")

    def said(done: int) -> None:
        if done % (count // 10) == 0:
            say(f"| {done:,} | {time.perf_counter() - begun:.0f} | {resident_memory() / 1e6:.0f} |")

    with tempfile.TemporaryDirectory() as folder:
        counts = write_tokens(Path(folder), examples(count), codec, EncodingSettings(max_length=2048), said)
        seconds, used = time.perf_counter() - begun, time.process_time() - cpu
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        say(f"\n{dict(counts)}: {seconds:.0f} s by the clock, {used:.0f} s of processors,")
        say(f"of which making the pairs took about {made:.0f} s; {written / 1e6:.0f} MB on disk.")
        begun = time.perf_counter()
        tokens = TokensOnDisk(Path(folder), ("chosen", "rejected"))
        opened = time.perf_counter() - begun
        total = 0
        begun = time.perf_counter()
        for one in tokens:
            total += sum(len(row) for row in one.rows.values())
        say(
            f"Opened in {opened:.1f} s; all read in {time.perf_counter() - begun:.1f} s: {total / len(tokens) / 2:.0f} "
            f"tokens a row; {resident_memory() / 1e6:.0f} MB of memory."
        )


if __name__ == "__main__":
    main()
