"""``kravl spectra run=FOLDER``: what finished runs added to their weights; several as ``run=[A,B]``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kravl.cli.configured import run_configured
from kravl.cli.main import framed
from kravl.runtime.errors import InputError

if TYPE_CHECKING:  # a typo is answered before torch is loaded
    from kravl.tracking.run_folder import RunFolder
    from kravl.training.spectrum_monitor import Trace


@framed
def main(arguments: Sequence[str]) -> int:
    """Measure and draw spectra; see `spectra`."""
    return run_configured("spectra", spectra, arguments)


def spectra(cfg: Any) -> None:
    """Draw the spectra of one run or several, side by side, and write a table and a page.

    Raises:
        InputError: no such run, or one that adapts no matrix.
    """
    from kravl.tracking.records import record_of
    from kravl.tracking.run_folder import find_run

    wanted = [cfg.run] if isinstance(cfg.run, str) else list(cfg.run)
    if not wanted:
        raise InputError("run=[] names no run; give run=FOLDER or run=[A,B]")
    folders = [find_run(run) for run in wanted]  # before torch is loaded
    for folder in folders:
        _require_matrices(folder)
    from kravl.analysis.spectra import report_spectra

    traces = {
        name: trace_of(folder, cfg.exact, cfg.plugins) for name, folder in zip(_names(folders), folders, strict=True)
    }
    out = Path(cfg.out) if cfg.out else folders[0].path / "spectra"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be written: {error.strerror}; pass out=/a/folder") from error
    methods = {name: str(record_of(folder)["method"]) for name, folder in zip(traces, folders, strict=True)}
    report_spectra(traces, methods, out)


def trace_of(folder: "RunFolder", exact: bool, plugins: Sequence[str] = ()) -> "Trace":
    """What the run recorded; of an older run, or ``exact``, its end is measured anew from the adapter's file.

    Raises:
        InputError: it adapts no matrix, or can no longer be restored.
    """
    from kravl.adapters.update_spectra import Diagnosis
    from kravl.run.finished.restore import load_run
    from kravl.training.spectrum_monitor import SPECTRA_FILE, Trace, read_trace

    path = folder.path / SPECTRA_FILE
    trace = read_trace(path) if path.exists() else Trace(path)
    if exact or not trace.steps:
        adapters = load_run(folder, plugins=plugins).adapters
        if not adapters.adapters:
            raise InputError(f"the run {folder.path} adapts no matrix; its update has no spectrum")
        diagnosis = Diagnosis(adapters, "exact" if exact else "fast")
        trace.steps[max(trace.steps, default=0)] = diagnosis.quantities()
        trace.singular_values = diagnosis.singular_values()
    return trace


def _require_matrices(folder: "RunFolder") -> None:
    """Raise InputError of a run that says that it adapts no matrix; nothing is loaded."""
    sites = folder.metrics().get("sites")
    if sites is None:  # of a record that does not say it
        from kravl.adapters.injection.serialization import read_description  # with torch

        sites = read_description(folder.adapter).get("sites")
    if not sites:
        raise InputError(f"the run {folder.path} adapts no matrix; its update has no spectrum")


def _names(folders: "Sequence[RunFolder]") -> list[str]:
    """Method and seed of each run, with its folder where that is not enough to tell them apart."""
    from kravl.tracking.methods import shown
    from kravl.tracking.records import record_of

    records = [record_of(folder) for folder in folders]
    short = [f"{shown(record['method'])}, seed {record['seed']}" for record in records]
    where = [f"{folder.path.parent.name}/{folder.path.name}" for folder in folders]
    return [name if short.count(name) == 1 else f"{name}, {at}" for name, at in zip(short, where, strict=True)]
