"""``kravl calibrate``: a temperature for a finished run, fitted on its validation images."""

import argparse
from collections.abc import Sequence

from kravl.cli.main import framed
from kravl.runtime.errors import printable

DESCRIPTION = """Fit a temperature, by which the logits of a finished run are divided, so that its probabilities are as
sure as they are right (Guo et al., ICML 2017). It is fitted by the negative log-likelihood of the validation images
that the protocol drew, never on test images; no prediction changes. It is kept in calibration.json of the run's
folder, where `kravl predict`, `kravl export` and `kravl.FewShotModel` read it."""
EXAMPLES = """examples:
  kravl calibrate runs/clip_vitb16_kra_16shot/seed1
  kravl calibrate runs/clip_vitb16_kra_16shot/seed1 --data-root /data --force

exit status: 0 done; 2 a mistake in the command or its files, a run without validation images, or images of which no
temperature is the best; 75 stopped on request; 130 interrupted"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Calibrate; what is not there is told before torch is loaded."""
    options = _parser().parse_args(arguments)
    from kravl.run.finished.saved import saved_config
    from kravl.run.sources import training_source
    from kravl.tracking.run_folder import find_run

    folder = find_run(options.run)
    root = {} if options.data_root is None else {"data_root": options.data_root}
    training_source(saved_config(folder, {**root, "plugins": options.plugins}))
    from kravl.cli.predict import device_of
    from kravl.run.calibrate import calibrate

    given = {"data_root": options.data_root, "plugins": options.plugins, "force": options.force}
    found = calibrate(folder, **given, device=device_of(options.device))
    print(printable(found.describe()))
    if found.about["selected_on"]:
        print("settings of the head were selected on the same images: on new ones it may be less sure than it says")
    print(printable(folder.path / "calibration.json"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kravl calibrate", "kravl calibrate RUN [options]", DESCRIPTION, EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run; the hash at its end may be left out")
    add("--data-root", help="where its data is (default: where the run had it)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--plugins", nargs="+", default=[], help="packages besides kravl that the run's classes may come from")
    add("--force", action="store_true", help="fit anew where there is a calibration")
    return parser
