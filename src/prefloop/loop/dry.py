"""Before the first step of a run: whether the largest micro-batch of its training fits into this machine."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from prefloop.config import LoadedRecipe, TrainStep
from prefloop.errors import RecipeError
from prefloop.loop.appraisal import Appraiser, Models
from prefloop.loop.artifact import Artifact
from prefloop.loop.journal import Journal
from prefloop.loop.largest import largest_of
from prefloop.loop.needs import Need, in_bytes
from prefloop.loop.plan import ends_at, walked
from prefloop.loop.progress import Progress
from prefloop.loop.steps import Resources
from prefloop.loop.steps.train import layout_of
from prefloop.objectives import find_objective
from prefloop.policy import PolicyFiles, return_freed_memory
from prefloop.training import dry_pass, is_out_of_memory


def try_largest(
    loaded: LoadedRecipe,
    run: Path,
    models: Models,
    resources: Resources,
    progress: Progress,
    *,
    until: str | None = None,
    reuse: Path | None = None,
) -> None:
    """Takes the largest micro-batch of the training that is left forward and backward; skips it if none is left.

    Raises:
        RecipeError: memory is exhausted. Says how much which part needs, and what to lower.
    """
    appraiser = Appraiser(loaded.recipe, models)
    needs = [(need, one) for one in left_to_train(loaded, run, models, until, reuse) if (need := appraiser.need(one))]
    if not needs or models.codec is None:
        return
    for need, artifact in needs:
        if need.recompute:
            resources.recomputed.add(artifact.path)
    need, artifact = max(needs, key=lambda pair: pair[0].bytes)
    settings = loaded.recipe.step(artifact.step, artifact.place.round or 0)
    assert isinstance(settings, TrainStep)
    if need.recompute and loaded.recipe.machine.gradient_checkpointing == "auto":
        progress.note(f"memory: {artifact.path} would not fit: layers are computed again (gradient checkpointing)")
    if appraiser.available is not None and need.bytes > appraiser.available:
        progress.note(
            f"memory: {artifact.path} may need {in_bytes(need.bytes)}, but {in_bytes(appraiser.available)} are there. "
            f"If the run is killed, {_remedy(artifact, settings)}"
        )
    batch = largest_of(artifact, loaded.recipe, models.codec, appraiser.facts(settings.lora))
    (start,) = artifact.inputs["start"]
    begun = start if start.step_type == "model" else models.model
    try:
        with progress.stage(f"dry pass of the largest micro-batch ({need.shape})"):
            dry_pass(
                batch,
                find_objective(settings.objective.name, "objective"),
                settings,
                resources.bench,
                PolicyFiles(begun.identity, begun.open()),
                layout_of(resources.machine, takes_trees=resources.bench.takes_trees),
                recompute=need.recompute,
            )
        return_freed_memory()
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise RecipeError(
            f"{loaded.where}: {artifact.path} does not fit into memory: its largest micro-batch, {need.shape}, needs "
            f"about {in_bytes(need.bytes)} ({_parts(need)}). To make it fit, {_remedy(artifact, settings)}"
        ) from error


def left_to_train(
    loaded: LoadedRecipe, run: Path, models: Models, until: str | None, reuse: Path | None
) -> Iterator[Artifact]:
    """Train steps that this call has to make."""
    trained: list[Artifact] = []
    for step, counted in walked(loaded, run, models):
        if step.artifact.step_type == "train" and counted is None:
            trained.append(step.artifact)
        if ends_at(step.artifact, until):
            break
    if reuse is None:
        yield from trained
        return
    with closing(Journal(reuse, read_only=True)) as journal:
        yield from (one for one in trained if journal.find(one.identity) is None)


def _parts(need: Need) -> str:
    return ", ".join(f"{part.name} {in_bytes(part.bytes)}" for part in need.parts)


def _remedy(artifact: Artifact, settings: TrainStep) -> str:
    sampled = [
        read.step
        for examples in artifact.inputs["examples"]
        for read in examples.inputs.get("responses", ())
        if read.step_type == "sample"
    ]
    names = ["machine.tokens_per_batch", *(f"{name}.max_new_tokens" for name in dict.fromkeys(sampled))]
    lowered = f"lower {', '.join(names)} or {artifact.step}.max_length"
    return f"{lowered}." if settings.lora is not None else f"{lowered}, or set {artifact.step}.lora."
