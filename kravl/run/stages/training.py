"""The training of one of several stages: what has a gradient in it, what it begins with, and what is said of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from kravl.config.schema import Config
from kravl.run.build import Run
from kravl.run.stages.plan import ADAPTERS, CONTEXT, HEAD, UNFREEZE, Stage, chosen_names, stages_of
from kravl.runtime.errors import first_line
from kravl.training.checkpoint import CheckpointError, SafeCheckpointIO
from kravl.training.learner import STAGE, Learner, Part

# what Lightning, torch and kravl raise when they restore a state that is whole and holds odd values
RESTORE_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def names_of(run: Run) -> dict[str, list[str]]:
    """What each word stands for in a run that is built."""
    head = {id(p) for p in run.classifier.head_parameters()}
    new = {id(p) for p in run.classifier.new_parameters()}
    named: dict[str, list[str]] = {HEAD: [], CONTEXT: [], UNFREEZE: []}
    for name, parameter in run.adapters.unfrozen.items():
        kind = HEAD if id(parameter) in head else CONTEXT if id(parameter) in new else UNFREEZE
        named[kind].append(name)
    return {ADAPTERS: list(run.adapters.adapters), **named}


def part_of(run: Run, stage: Stage) -> Part | None:
    """What a learner has to know of a ``stage``; None of the only one."""
    if stage.number is None:
        return None
    return Part(stage.number, stage.before, stage.steps, frozenset(map(id, run.adapters.parameters())))


def begin(trainer: Trainer, learner: Learner, run: Run, stage: Stage, checkpoint: Path | None) -> None:
    """Put in place what a ``stage`` begins with: what the stages before left, and class weights if it starts them.

    Args:
        checkpoint: of the stage itself, which has been begun before; None: the stages before have just ended.

    Raises:
        CheckpointError: the checkpoint is no state of this run.
    """
    classifier = run.classifier
    classifier.head_waits = stage.head_waits
    trainer.precision_plugin.convert_module(learner)  # first: what was trained in double would be rounded
    if checkpoint is not None:
        try:
            learner.load_state_dict(SafeCheckpointIO().load_checkpoint(checkpoint)["state_dict"])
        except RESTORE_ERRORS as error:
            raise unwritten(checkpoint, error) from error
    classifier.to(trainer.strategy.root_device)
    if stage.starts_head and checkpoint is None:
        classifier.start_head()
    classifier.prepare()  # while all that trains has a gradient: a text tower that is frozen from now on has changed
    for module in learner.modules():  # as it was built: Lightning warns of what the stage before left frozen
        module.training = True


def stage_in(checkpoint: Path, count: int) -> int:
    """The number of the stage that a ``checkpoint`` is of. Raises CheckpointError where it is of none of so many."""
    state = SafeCheckpointIO().load_checkpoint(checkpoint)
    number = state.get(STAGE) if isinstance(state, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise CheckpointError(f"{checkpoint} is of stage {str(number)[:40]}, and this run has {count}; remove it")
    return number


def unwritten(checkpoint: Path, error: BaseException) -> CheckpointError:
    """For a whole checkpoint with odd values in it."""
    reason = f"{type(error).__name__} {first_line(error)}"
    return CheckpointError(f"{checkpoint} is no state that training writes ({reason}); remove it")


@contextmanager
def only(run: Run, stage: Stage) -> Iterator[None]:
    """Within the block nothing but what ``stage`` trains has a gradient."""
    if stage.number is None:
        yield
        return
    named = run.adapters.named_parameters()
    chosen = chosen_names(stage.train, names_of(run), f"stages.{stage.number}")
    sites = tuple(f"{site}." for site in run.adapters.adapters if site in chosen)
    try:
        for name, parameter in named.items():
            trains = name in chosen if name in run.adapters.unfrozen else name.startswith(sites)
            parameter.requires_grad_(trains)
            parameter.grad = None
        yield
    finally:
        for parameter in named.values():
            parameter.requires_grad_(True)


def stage_record(cfg: Config, run: Run) -> dict[str, Any]:
    """What metrics.json says of the stages: nothing of a run without."""
    stages = [stage for stage in stages_of(cfg) if stage.number is not None]
    kept = []
    for stage in stages:
        with only(run, stage):
            count = sum(p.numel() for p in run.adapters.parameters() if p.requires_grad)
        kept.append({"train": list(stage.train), "steps": stage.steps, "trainable_parameters": count})
    return {"stages": kept} if kept else {}
