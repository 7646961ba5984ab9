"""Changes the functions of a room one operator, sign or constant at a time; reports which no number and no test sees.

The room is `objectives`, `pairing`, `search` or `worlds`. One pytest run collects its tests. A first child process
records which vector files and which tests run each function; then each mutant gets a child process of its own, in which
the function's code is exchanged: first the published numbers are recomputed, then the tests that run the function,
fastest first, until one fails.

    python scripts/mutate_objectives.py [--room worlds] [--each 5] [--seed 0] [--files NAME ...] [--only FUNCTION ...]
                                        [--tests PATH ...] [--json FILE]
"""

import argparse
import ast
import copy
import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "prefloop"
ITSELF = "test_mutations.py"
ENOUGH = 0.95
LONGEST = 180
"""Seconds until a mutant that does not come to an end counts as killed."""

# ------------------------------------------------------------------------------------------------------- the mutants


@dataclass(frozen=True)
class Mutant:
    """A change of one function."""

    file: str
    """Below `src/prefloop`."""
    function: str
    """With the class, where it is a method."""
    change: str
    source: str
    """The whole module, changed."""
    by_hand: str = ""
    """What the change stands for, where a person chose it."""

    @property
    def key(self) -> str:
        """The file and the function."""
        return f"{self.file}:{self.function}"

    @property
    def name(self) -> str:
        """Where it is and what it changes."""
        return f"{self.file}: {self.function}: {self.change}{f' ({self.by_hand})' if self.by_hand else ''}"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    killed_by: str | None
    """`vectors`, `tests` or `time`; None for a survivor."""
    witness: str = ""
    """The first file or test that saw it."""


BY_HAND = (
    (
        "sign of the length term",
        "length_regularized_dpo",
        "+ alpha * (chosen_lengths - rejected_lengths)",
        "- alpha * (chosen_lengths - rejected_lengths)",
    ),
    ("beta for 1/beta", "ipo", "rho_rejected - 1 / (2 * beta)", "rho_rejected - beta / 2"),
    (
        "mean for sum over tokens",
        "tail_weighted_sum",
        "return masked_sum(torch.where(in_the_tail, tail_weight * token_logps, token_logps), token_mask)",
        "return masked_sum(torch.where(in_the_tail, tail_weight * token_logps, token_logps), token_mask)"
        " / token_mask.sum(1)",
    ),
    (
        "reference of the wrong model",
        "inpo_gap",
        "ref_chosen_logps - ref_rejected_logps",
        "prev_chosen_logps - prev_rejected_logps",
    ),
    ("chosen and rejected swapped", "dpo", "rho_chosen - rho_rejected", "rho_rejected - rho_chosen"),
    ("label smoothing on one side", "smoothed_logistic", "-(1 - smoothing) * logsigmoid(x)", "-logsigmoid(x)"),
    (
        "weights on policy but not on reference",
        "bmc",
        "(weights_chosen * (policy_chosen_token_logps - ref_chosen_token_logps))",
        "(weights_chosen * policy_chosen_token_logps - ref_chosen_token_logps)",
    ),
    ("sign of optimism", "selm", "+ alpha * beta * rho_response", "- alpha * beta * rho_response"),
    (
        "tau/eta exchanged",
        "inpo_gap",
        "- tau / eta * ref_gap - (1 - tau / eta)",
        "- eta / tau * ref_gap - (1 - eta / tau)",
    ),
    ("clamp removed", "wpo", "log_weights.clamp(max=0)", "log_weights"),
)
"""What the change stands for, the function, text that it has once, text in its place."""

BY_HAND_IN_WORLDS = (
    (
        "label turned round",
        "Judges.labelling",
        '_scores("labels", pair, (wins, 1 - wins))',
        '_scores("labels", pair, (1 - wins, wins))',
    ),
    ("probability of a verdict left out", "groups", "mass * chance", "mass"),
    ("equal examples counted once", "as_tokens", "known.weight + made.weight", "made.weight"),
    (
        "mean in place of the sum over masses",
        "PopulationLoss.forward",
        "(self.masses * self.losses()).sum()",
        "self.losses().mean()",
    ),
    (
        "the start is every reference",
        "population_loss",
        "if references is None else references",
        "if True else references",
    ),
    ("first policy of a mixture alone", "ExactStage._reference", "if mixture is None else", "if True else"),
    ("temperature not applied", "ExactStage._draws", ".tempered(settings.temperature)", ".tempered(1.0)"),
    ("one answer in place of K", "ExactStage._draws", "* settings.num_samples", "* 1"),
    ("the gate sees the initial model twice", "ExactStage._evaluation", 'against("round_start")', 'against("initial")'),
    (
        "gradient alone in the sandwich",
        "standard_errors",
        "of_logps @ spread * of_logps",
        "of_logps @ inverse * of_logps",
    ),
    (
        "reference of the wrong round",
        "Scope.policy",
        """case "round_start":
                return self.round_start""",
        """case "round_start":
                return self.initial""",
    ),
)

BY_HAND_IN_PAIRING = (
    ("ties kept", "best_worst", "<= min_margin", "< min_margin"),
    ("ties kept", "all_pairs", "margin <= min_margin", "margin < min_margin"),
    (
        "an answer against itself counted twice",
        "win_rates",
        "fsum((total, 0.5)) / size",
        "fsum((total, 0.5, 0.5)) / size",
    ),
    (
        "charge on length by the mean of absolute gaps",
        "search_alpha",
        "[length[two[0]] - length[two[1]] for",
        "[abs(length[two[0]] - length[two[1]]) for",
    ),
    (
        "charge on length at the least gap, not the one nearest to 0",
        "search_alpha",
        "abs(gap) < abs(found.mean_length_gap)",
        "gap < found.mean_length_gap",
    ),
    (
        "the teacher's margin where it loses",
        "teacher_pairs",
        "margin_teacher if is_teacher[good]",
        "margin_teacher if is_teacher[bad]",
    ),
    ("sides swapped", "pair", "members=(chosen, rejected)", "members=(rejected, chosen)"),
    (
        "variance added",
        "combined",
        "center - uncertainty *",
        "center + uncertainty *",
    ),
    (
        "one order of a comparison alone",
        "win_matrix",
        "matrix[first, second] = mean(both)",
        "matrix[first, second] = both[0]",
    ),
    ("a dropped pair returns", "not_outdone", "given(group) if group.examples is None", "given(group) if True"),
    (
        "a winner that loses the final is kept",
        "tournament",
        "if not bracket.kept",
        "if False",
    ),
)


@dataclass(frozen=True)
class Room:
    """Whose functions are changed."""

    name: str
    left_out: tuple[str, ...]
    """Files without a formula."""
    tests: tuple[str, ...]
    """Files or folders, and options of pytest."""
    by_hand: tuple[tuple[str, str, str, str], ...]
    has_vectors: bool
    """Published numbers are recomputed as well."""
    beside: tuple[str, ...] = ()
    """Files of other rooms that are changed by hand alone."""

    @property
    def sources(self) -> dict[str, str]:
        """The texts of its files, by name below the package."""
        files = [file for file in sorted((PACKAGE / self.name).glob("*.py")) if file.name not in self.left_out]
        return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in files}

    @property
    def names(self) -> dict[str, str]:
        """Path of each file whose functions may be changed -> its name below the package."""
        return {str(PACKAGE / name): name for name in [*self.sources, *self.beside]}


ROOMS = {
    room.name: room
    for room in (
        Room(
            "objectives",
            ("__init__.py", "described.py", "quantities.py", "registry.py"),
            ("tests/objectives", "tests/testing"),
            BY_HAND,
            has_vectors=True,
        ),
        Room(
            "pairing",
            ("__init__.py", "registry.py"),
            (
                "tests/pairing",
                "tests/evaluation/test_mt_bench.py",
                "tests/evaluation/test_arena_hard.py",
                "-m",
                "not slow",
            ),
            BY_HAND_IN_PAIRING,
            has_vectors=True,
        ),
        Room("search", ("__init__.py",), ("tests/search", "-m", "not slow"), (), has_vectors=False),
        Room(
            "worlds",
            ("__init__.py",),
            ("tests/worlds", "-m", "not slow"),
            BY_HAND_IN_WORLDS,
            has_vectors=False,
            beside=("loop/scope.py",),
        ),
    )
}

OPERATORS: dict[type, tuple[Callable[[], Any], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """The same expression with another operator, sign or constant."""
    match node:
        case ast.BinOp():
            yield from (ast.BinOp(node.left, made(), node.right) for made in OPERATORS.get(type(node.op), ()))
        case ast.BoolOp():
            yield from (ast.BoolOp(made(), node.values) for made in OPERATORS[type(node.op)])
        case ast.Compare(ops=[only]):
            yield from (ast.Compare(node.left, [made()], node.comparators) for made in OPERATORS.get(type(only), ()))
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield ast.Constant(number + 1)
        case _:
            pass


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of a module and methods of its classes, by qualified name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{each.name}", each) for each in node.body if isinstance(each, ast.FunctionDef))


def body_nodes(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Everything in a function's body but its docstring and annotations: parent, field, place in a list, node."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    for parent in (each for statement in statements for each in _walked(statement)):
        for field, value in ast.iter_fields(parent):
            if _is_annotation(parent, field):
                continue
            if isinstance(parent, ast.keyword) and parent.arg == "strict":
                continue  # zip's: it says what is so anyway
            if isinstance(value, ast.AST):
                yield parent, field, None, value
            elif isinstance(value, list):
                yield from (
                    (parent, field, place, each) for place, each in enumerate(value) if isinstance(each, ast.AST)
                )


def _walked(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what stands in it; nobody computes annotations."""
    yield node
    for field, value in ast.iter_fields(node):
        inside: list[Any] = [] if _is_annotation(node, field) else value if isinstance(value, list) else [value]
        yield from (each for one in inside if isinstance(one, ast.AST) for each in _walked(one))


def _is_annotation(parent: ast.AST, field: str) -> bool:
    return field in {"annotation", "returns", "args"} and isinstance(parent, ast.AnnAssign | ast.FunctionDef)


def mutants_of(file: str, source: str, each: int, seed: int) -> Iterator[Mutant]:
    """`each` changes a function, drawn from all its possible ones by the seed and its name."""
    for name, _ in functions(ast.parse(source)):
        tree = ast.parse(source)
        function = dict(functions(tree))[name]
        possible = [(*found, new) for found in body_nodes(function) for new in replacements(found[3])]
        drawn = random.Random(f"{seed} {file} {name}").sample(range(len(possible)), min(each, len(possible)))
        for parent, field, place, old, new in (possible[number] for number in sorted(drawn)):
            # A constant says nothing alone.
            around = parent if isinstance(old, ast.Constant) else old
            before = ast.unparse(around)
            _put(parent, field, place, ast.fix_missing_locations(ast.copy_location(copy.deepcopy(new), old)))
            after = ast.unparse(parent if around is parent else new)
            yield Mutant(file, name, f"`{before}` -> `{after}`", ast.unparse(tree))
            _put(parent, field, place, old)


def _put(parent: ast.AST, field: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[place] = node


def mutants_by_hand(room: Room) -> Iterator[Mutant]:
    """The changes that a person chose, each in the text of its function."""
    sources = room.sources | {name: (PACKAGE / name).read_text(encoding="utf-8") for name in room.beside}
    for meaning, name, old, new in room.by_hand:
        file, source, node = next(
            (file, source, found)
            for file, source in sources.items()
            for each, found in functions(ast.parse(source))
            if each == name
        )
        text = ast.get_source_segment(source, node) or ""
        if text.count(old) != 1:
            raise SystemExit(f"{file}: {name} has {text.count(old)} times '{old}', expected one ({meaning}).")
        yield Mutant(file, name, f"`{old}` -> `{new}`", source.replace(text, text.replace(old, new)), meaning)


def all_mutants(room: Room, each: int, seed: int) -> list[Mutant]:
    """Those by hand, then the drawn ones of every formula."""
    drawn = [mutant for file, source in room.sources.items() for mutant in mutants_of(file, source, each, seed)]
    return [*mutants_by_hand(room), *drawn]


# ------------------------------------------------------------------------------------------------- exchanging the code


def code_of(source: str, path: str, function: str) -> CodeType:
    """The code of a function or method in a module's source."""
    pending = [compile(source, path, "exec")]
    while pending:
        code = pending.pop()
        if code.co_qualname == function:
            return code
        pending += [each for each in code.co_consts if isinstance(each, CodeType)]
    raise AssertionError(function)


def loaded_functions(names: dict[str, str]) -> dict[str, list[FunctionType]]:
    """Functions by their file's name and their qualified one, also those that only shape checks still refer to."""
    found: dict[str, list[FunctionType]] = {}
    for each in gc.get_objects():
        if type(each) is FunctionType:  # isinstance would ask lazy modules for their class
            name = names.get(each.__code__.co_filename)
            if name is not None:
                found.setdefault(f"{name}:{each.__code__.co_qualname}", []).append(each)
    return found


def exchange(mutant: Mutant, loaded: dict[str, list[FunctionType]]) -> None:
    """Gives the function the mutant's code, wherever it is used."""
    code = code_of(mutant.source, str(PACKAGE / mutant.file), mutant.function)
    for each in loaded[mutant.key]:
        each.__code__ = code


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked process, as JSON; None where `signal.alarm` ended it.

    Raises:
        RuntimeError: the process ended in any other way: a fault of this script is no mutant that was seen.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(work, writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return None
    if status != 0:
        raise RuntimeError(said)
    return json.loads(said)


def _answer(work: Callable[[], Any], writing: int) -> NoReturn:
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    status = 1
    try:
        said = json.dumps(work())
        status = 0
    except BaseException:
        said = traceback.format_exc()
    with os.fdopen(writing, "w") as out:
        out.write(said)
    os._exit(status)


# ---------------------------------------------------------------------------------------------------- inside of pytest


class Mutations:
    """Pytest plugin: instead of running the tests once, runs each mutant against what runs its function."""

    def __init__(self, room: Room, mutants: list[Mutant]) -> None:
        self.room = room
        self.mutants = mutants
        self.verdicts: list[Verdict] = []

    def pytest_sessionstart(self) -> None:
        """The same examples for every mutant, and none of a mutant's failures remembered."""
        from hypothesis import settings  # noqa: PLC0415 (after pytest has prepared its import)

        settings.register_profile("mutations", database=None, derandomize=True, deadline=None)
        settings.load_profile("mutations")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out the test that calls this script."""
        items[:] = [item for item in items if item.path.name != ITSELF]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        started = time.monotonic()
        if self.room.has_vectors:
            vector_files()  # here, so that no child has to import what reads them
        loaded = loaded_functions(self.room.names)
        gc.freeze()
        seen = in_a_child(lambda: record(self.room, session.items))
        for left_out in seen["failed"]:
            print(f"left out, it fails without a mutation: {left_out}")
        print(f"{len(session.items)} tests recorded after {time.monotonic() - started:.0f} s", flush=True)
        for mutant in self.mutants:
            stems = seen["stems"].get(mutant.key, [])
            items = [session.items[number] for number in seen["tests"].get(mutant.key, [])]
            found = in_a_child(partial(judged, mutant, loaded, stems, items))
            self.verdicts.append(Verdict(mutant, *(found or ("time", f"more than {LONGEST} s"))))
            if self.verdicts[-1].killed_by is None:
                print(f"survived: {mutant.name}", flush=True)
        print(f"{len(self.mutants)} mutants judged after {time.monotonic() - started:.0f} s")
        return True


def record(room: Room, items: list[pytest.Item]) -> dict[str, Any]:
    """Which vector files and which tests (fastest first) run which function, and which tests fail as things are."""
    stems: dict[str, list[str]] = {}
    tests: dict[str, list[tuple[float, int]]] = {}
    failed: list[str] = []
    names = room.names
    for stem in vector_files() if room.has_vectors else ():
        for key in calls(names, partial(vectors_differ, stem))[1]:
            stems.setdefault(key, []).append(stem)
    for number, item in enumerate(items):
        started = time.perf_counter()
        failing, called = calls(names, partial(fails, item))
        if failing:
            failed.append(item.nodeid)
            continue
        for key in called:
            tests.setdefault(key, []).append((time.perf_counter() - started, number))
    by_time = {key: [number for _, number in sorted(found)] for key, found in tests.items()}
    return {"stems": stems, "tests": by_time, "failed": failed}


def calls(names: dict[str, str], work: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What `work` returns, and the functions of some files that it ran."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename in names:
            called.add(f"{names[code.co_filename]}:{code.co_qualname.split('.<locals>')[0]}")

    sys.setprofile(note)
    try:
        return work(), called
    finally:
        sys.setprofile(None)


def judged(
    mutant: Mutant, loaded: dict[str, list[FunctionType]], stems: list[str], items: list[pytest.Item]
) -> tuple[str | None, str]:
    """Exchanges the code, for good: what sees it, and which file or test."""
    signal.alarm(LONGEST)
    exchange(mutant, loaded)
    for stem in stems:
        if vectors_differ(stem):
            return "vectors", stem
    for item in items:
        if fails(item):
            return "tests", item.nodeid
    return None, ""


def fails(item: pytest.Item) -> bool:
    """Runs a test with its fixtures, says nothing."""
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def vector_files() -> list[str]:
    """Stems of the shipped files."""
    from prefloop.testing.vectors import shipped_vectors  # noqa: PLC0415 (pytest has to check its shapes)

    return sorted(path.stem for path in shipped_vectors().glob("*.json"))


def vectors_differ(stem: str) -> bool:
    """Whether a published number is not reproduced."""
    from prefloop.testing.vectors import shipped_vectors, verify_file  # noqa: PLC0415

    try:
        return verify_file(shipped_vectors() / f"{stem}.json").status == "fail"
    except Exception:
        return True


# ------------------------------------------------------------------------------------------------------------- the end


def report(verdicts: list[Verdict]) -> float:
    """Prints a table and the survivors, returns the share that something sees."""
    for title, some in (
        ("drawn", [each for each in verdicts if not each.mutant.by_hand]),
        ("by hand", [each for each in verdicts if each.mutant.by_hand]),
    ):
        count = Counter(each.killed_by or "survived" for each in some)
        print(f"{title}: {len(some)} mutants, {', '.join(f'{count[key]} {key}' for key in sorted(count))}")
    for each in verdicts:
        if each.killed_by is None:
            print(f"  survived: {each.mutant.name}")
    share = sum(each.killed_by is not None for each in verdicts) / max(len(verdicts), 1)
    print(f"{share:.1%} are seen by a published number or a test; {ENOUGH:.0%} have to be.")
    return share


def main() -> int:
    """0 where enough mutants are seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--room", choices=ROOMS, default="objectives", help="whose functions are changed")
    parser.add_argument("--each", type=int, default=5, help="mutants a function")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--files", nargs="*", default=(), help="names of files, without folder")
    parser.add_argument("--only", nargs="*", default=(), help="names of functions")
    parser.add_argument("--tests", nargs="*", help="files or folders of tests, in place of the room's")
    parser.add_argument("--json", type=Path, help="where every verdict is written")
    given = parser.parse_args()
    room = ROOMS[given.room]

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    mutants = all_mutants(room, given.each, given.seed)
    mutants = [each for each in mutants if not given.only or each.function in given.only]
    mutants = [each for each in mutants if not given.files or Path(each.file).name in given.files]
    plugin = Mutations(room, mutants)
    code = pytest.main(["-q", "-s", "-p", "no:cacheprovider", *(given.tests or room.tests)], plugins=[plugin])
    if len(plugin.verdicts) < len(mutants):
        return int(code) or 1
    share = report(plugin.verdicts)
    if given.json:
        rows = [{**asdict(each), "mutant": each.mutant.name} for each in plugin.verdicts]
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
