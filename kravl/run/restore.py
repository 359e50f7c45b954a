"""A finished run's model again, from its config and the adapter in its folder."""

from kravl.adapters.injection.serialization import load_adapters
from kravl.config.schema import Config
from kravl.run.build import Run, build_run
from kravl.run.sources import Sources
from kravl.runtime.dtypes import TRUE
from kravl.tracking.run_folder import RunFolder


def restore(cfg: Config, folder: RunFolder, sources: Sources | None = None) -> Run:
    """The model and data of a finished run, with what it trained in place, in the precision of its weights.

    Args:
        sources: as `build_run`.

    Raises:
        InputError: as `build_run` and `load_adapters`.
    """
    run = build_run(cfg, sources)
    if dtype := TRUE.get(str(cfg.trainer.get("precision"))):  # first: what was trained in double would be rounded
        run.classifier.to(dtype)
    load_adapters(run.adapters, folder.adapter, run.fingerprint)
    return run
