"""The training of a run from its newest whole checkpoint, and how a run ends that cannot continue."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.backbones.classifier import statistics
from kravl.config.schema import Config
from kravl.data.loading.resumable import workers_end
from kravl.evaluation.predict import image_features
from kravl.run.build import L2_SP_0, Run
from kravl.run.finished.continued import start_from_init
from kravl.run.finished.model_record import model_record
from kravl.run.heads.fit import Choice, fit_head
from kravl.run.stages.plan import Stage, stages_of
from kravl.run.stages.training import RESTORE_ERRORS, begin, only, part_of, stage_in, unwritten
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import read_json, write_atomic
from kravl.runtime.microbatch import OutOfMemory, is_out_of_memory
from kravl.runtime.profiler import Profiler
from kravl.runtime.signals import EXIT_RESUMABLE, Interrupted, handling
from kravl.tracking.run_folder import RunFolder
from kravl.tracking.settings import settings_sha256
from kravl.training.checkpoint import CheckpointError, latest
from kravl.training.frozen_state import UnsavedChangeError
from kravl.training.l2_sp import L2SP
from kravl.training.learner import DivergedError, Learner
from kravl.training.loss import Loss

log = logging.getLogger(__name__)
KEPT = "what has been trained is kept: run the same command again"
LISTED = 8
MakeTrainer = Callable[[Mapping[str, int]], Trainer]  # of a length, see `limits`


@contextmanager
def graceful_exit() -> Iterator[None]:
    """Within the block a request to end is handled, and every known reason to stop is one line and an exit code.

    Raises:
        SystemExit: see `train`.
    """
    with handling():
        try:
            yield
        except (Interrupted, SIGTERMException) as stop:
            log.warning("stopped on request (%s); run the same command again to resume", stop or "SIGTERM")
            sys.exit(EXIT_RESUMABLE)
        except (DivergedError, CheckpointError, OutOfMemory, UnsavedChangeError, FloatingPointError) as error:
            sys.exit(f"error: {error}")
        except MisconfigurationException as error:  # of Lightning: a setting that shows as wrong when it is used
            sys.exit(f"error: trainer: {first_line(error)}")
        except OSError as error:
            file = f"{error.filename}: " if error.filename else ""
            sys.exit(f"error: {workers_end(error) or f'{file}{error.strerror or error}'}; {KEPT}")
        except (RuntimeError, MemoryError) as error:
            if not (reason := f"out of memory: {first_line(error)}" if is_out_of_memory(error) else workers_end(error)):
                raise
            sys.exit(f"error: {reason}; {KEPT}")


@dataclass(frozen=True)
class Training:
    """What is kept of a training that has ended, so that no failing evaluation can lose it.

    Args:
        settings_sha256: of the settings that decided it.
        precision: that it was computed in.
        phases: what its phases cost, see `Profiler`.
        spectrum_seconds: what spectra took.
        shortened: why it is less than its settings say, see `untrained`.
        selected: settings of a head, by ``tune``.
    """

    settings_sha256: str
    precision: str
    phases: dict[str, dict[str, float]]
    spectrum_seconds: float
    shortened: list[str] = field(default_factory=list)
    selected: Choice = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        fitted: "Fitted",
        profiler: Profiler,
        spectrum_seconds: float,
    ) -> "Training":
        """Of a training that has just ended in ``folder``; ``spectrum_seconds`` are in seconds."""
        sha256, precision = settings_sha256(folder.settings), str(fitted.trainer.precision)
        return cls(sha256, precision, dict(profiler.costs), spectrum_seconds, fitted.lacking, fitted.selected)


def untrained(trainer: Trainer, stage: Stage) -> list[str]:
    """What a training that has just ended lacks of the length of its ``stage``: steps, or batches of an epoch.

    By what was done, not by which of Trainer's arguments were given: several of them end a training early.
    """
    if trainer.train_dataloader is None:
        return []
    batches, bounds = len(trainer.train_dataloader), stage.length
    planned = bounds.get("max_steps", bounds["max_epochs"] * -(-batches // trainer.accumulate_grad_batches))
    lacking = []
    if trainer.num_training_batches < batches:
        lacking.append(f"epochs of {trainer.num_training_batches} of {batches} batches")
    if trainer.global_step < planned:
        lacking.append(f"trained {trainer.global_step} of {planned} steps")
    return lacking if stage.number is None else [f"stage {stage.number + 1}: {line}" for line in lacking]


def keep_training(folder: RunFolder, run: Run, training: Training) -> None:
    """Write the adapters of a training that has ended, and then that it has."""
    save_adapters(run.adapters, folder.adapter, run.fingerprint, model_record(run, folder).as_json())
    folder.trained.parent.mkdir(exist_ok=True)
    write_atomic(folder.trained, json.dumps(asdict(training)) + "\n")


def ended_training(folder: RunFolder) -> Training | None:
    """What `keep_training` wrote with the same deciding settings; None if there is nothing, or not all of it."""
    try:
        training = Training(**read_json(folder.trained))
    except (InputError, TypeError):
        return None
    return (
        training if training.settings_sha256 == settings_sha256(folder.settings) and folder.adapter.is_file() else None
    )


def load_training(folder: RunFolder, run: Run, trainer: Trainer) -> bool:
    """Put what was trained in place; False where its file is damaged, and the newest checkpoint has to serve."""
    trainer.precision_plugin.convert_module(run.classifier)  # first: what was trained in double would be rounded
    try:
        load_adapters(run.adapters, folder.adapter, run.fingerprint)
    except InputError as error:
        log.warning("%s; resuming from the newest checkpoint", error)
        return False
    log.info("training has ended before (%s); evaluating", folder.adapter)
    return True


class Fitted(NamedTuple):
    """A training that has ended: the trainer of its last stage, settings that a head has selected, what is lacking."""

    trainer: Trainer
    selected: Choice
    lacking: list[str]


def fit(trainer: Trainer, again: MakeTrainer, cfg: Config, run: Run, checkpoints: Path, profiler: Profiler) -> Fitted:
    """Train from the newest whole checkpoint in the folder ``checkpoints``, or from the start; stage by stage.

    A head on features is fitted instead.

    Args:
        trainer: of the first stage.
        again: makes one of each further stage, by its length.

    Raises:
        InputError: nothing is to be trained, or the checkpoint is of other parameters.
        DivergedError: loss or gradient are no numbers; with step, images and the last good checkpoint.
        OutOfMemory: memory does not suffice for one image.
    """
    if not cfg.optim.trains:
        return Fitted(trainer, {}, [])
    if run.classifier.feature_head is not None:
        return Fitted(trainer, fit_head(trainer, cfg, run, profiler), [])
    start_from_init(cfg, run)
    if not run.adapters.parameters():
        raise InputError("nothing to train: sites is null and unfreeze is empty; optim.epochs=0 evaluates as it is")
    loss, changing = Loss(cfg.optim.label_smoothing, run.class_weights, _penalty(cfg, run)), []
    if cfg.train_statistics:
        changing = statistics(run.classifier)
    stages, lacking = stages_of(cfg), list[str]()
    newest = latest(checkpoints, tidy=trainer.is_global_zero)
    for stage in stages[stage_in(newest, len(stages)) if newest and cfg.stages else 0 :]:
        trainer = again(stage.length) if stage.number else trainer
        learner = Learner(run.classifier, stage.optim, cfg.seed, loss, changing, part_of(run, stage))
        if stage.number is not None:
            begin(trainer, learner, run, stage, _newest(trainer, learner, checkpoints))
        with only(run, stage):
            _train(trainer, learner, cfg, run, checkpoints, profiler)
        lacking += untrained(trainer, stage)
    return Fitted(trainer, {}, lacking)


def _penalty(cfg: Config, run: Run) -> L2SP | None:
    if not cfg.optim.l2_sp:
        return None
    new = frozenset(map(id, run.classifier.new_parameters()))
    if all(id(parameter) in new for parameter in run.adapters.parameters()):
        raise InputError(
            f"optim.l2_sp={cfg.optim.l2_sp:g}: all that trains is new and has no pretrained value; {L2_SP_0}"
        )
    return L2SP(run.adapters.changes, cfg.optim.l2_sp, new)


def _train(trainer: Trainer, learner: Learner, cfg: Config, run: Run, checkpoints: Path, profiler: Profiler) -> None:
    """Train what has a gradient, on features of the images where every step would compute the same. Raises as `fit`."""
    run.data.train_on(None)
    if run.classifier.features_are_fixed() and (images := run.data.repeated_images()) is not None:
        with profiler("features"):
            features = image_features(trainer, run.classifier, images)
        if len(features) == len(run.data.train_samples):  # not where trainer.limit_test_batches leaves some out
            run.data.train_on(features)
    try:
        with profiler("train"):
            while not _fits(trainer, learner, run, _newest(trainer, learner, checkpoints)):
                learner.micro_batches.halve(cfg.loading.batch_size, "loading.batch_size")
    except DivergedError as error:
        names = [run.data.train_samples.names[i] for i in error.indices[:LISTED]]
        before = f"the last good state is {latest(checkpoints, tidy=trainer.is_global_zero)}"
        raise DivergedError(f"{error}; images {', '.join(names)}; {before}", error.indices) from error


def _newest(trainer: Trainer, learner: Learner, checkpoints: Path) -> Path | None:
    """The newest whole checkpoint of what ``learner`` trains; that of an earlier stage is none."""
    newest = latest(checkpoints, tidy=trainer.is_global_zero)
    earlier = newest and learner.part and stage_in(newest, learner.part.number + 1) != learner.part.number
    return None if earlier else newest


def _fits(trainer: Trainer, learner: Learner, run: Run, checkpoint: Path | None) -> bool:
    """Train on from ``checkpoint`` to the end; False where memory runs out before."""
    if checkpoint:
        log.info("resuming from %s", checkpoint)
    try:
        trainer.fit(learner, run.data, ckpt_path=checkpoint, weights_only=True)
    except RESTORE_ERRORS as error:
        if not is_out_of_memory(error):
            if checkpoint is None or learner.started or isinstance(error, InputError):
                raise
            raise unwritten(checkpoint, error) from error
        if trainer.world_size > 1:  # the others wait for this process, whose step cannot be taken back alone
            raise OutOfMemory(
                f"out of memory in process {trainer.global_rank} of {trainer.world_size}: halve loading.batch_size and "
                "double trainer.accumulate_grad_batches; the effective batch stays the same"
            ) from error
        if learner.statistics:
            raise OutOfMemory(
                "out of memory, and train_statistics=true takes those of whole batches: lower loading.batch_size"
            ) from error
        return False
    return True
