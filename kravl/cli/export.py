"""``kravl export``: a finished run for another library, checked by that library alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kravl.cli.main import EXIT_FAILED, framed, say
from kravl.export.target import check_run, check_target, formats
from kravl.runtime.errors import printable

DESCRIPTION = """Write a finished run for another library: open_clip, timm and transformers (folders that they load, and
that their hub takes), onnx (image encoder, text encoder, classifier), pt2 (torch.export), peft (the adapter alone).

Each folder has load.py, which scores images without kravl, and a model card. Before a folder gets its name, another
process, in which kravl cannot be imported, loads it and scores the same pictures; where logits differ by more than
1e-5 (onnx: 1e-3) of the largest, nothing is left of it. KRAdapter and other methods of kravl.peft are ones of PEFT
after `import kravl.peft`, which that process may import, and nothing else of kravl."""
EXAMPLES = """examples:
  kravl export runs/clip_vitb16_kra_16shot/seed1 --to open_clip
  kravl export runs/clip_vitb16_kra_16shot/seed1 --to onnx --out model_onnx
  kravl export runs/clip_vitb16_kra_16shot/seed1 --to transformers --alpha 0.5

exit status: 0 done; 1 the export could not be loaded, or differs, and was removed; 2 a mistake in the command or its
files, or a model that the format cannot hold; 130 interrupted"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Export; what is not there is told before torch is loaded."""
    options = _parser().parse_args(arguments)
    from kravl.tracking.run_folder import find_run

    folder = find_run(options.run)
    out: Path = options.out or folder.path / f"export_{options.to}"
    check_target(options.to, out, options.force)
    from kravl.adapters.injection.serialization import read_description
    from kravl.export.check import ExportError
    from kravl.export.write import export_run
    from kravl.run.finished.restore import load_run
    from kravl.run.finished.saved import saved_config

    cfg = saved_config(folder, {"plugins": options.plugins})
    check_run(options.to, cfg, read_description(folder.adapter).get("method"), options.alpha)
    calibrated = not options.uncalibrated
    run = load_run(folder, data_root=options.data_root, plugins=options.plugins, calibrated=calibrated)
    try:
        export = export_run(run, options.to, out, options.alpha, options.force)
    except ExportError as error:
        return say(f"error: {error}", EXIT_FAILED)
    for note in export.notes:
        print(printable(note))
    difference = f"{export.difference:.1e} of the largest (at most {export.tolerance:.0e})"
    alone = f"with {', '.join(export.extensions)} and nothing else of kravl" if export.extensions else "without kravl"
    print(f"largest difference of a logit {alone}: {difference}")
    print(printable(export.folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    usage = "kravl export RUN --to FORMAT [options]"
    parser = argparse.ArgumentParser("kravl export", usage, DESCRIPTION, EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run; the hash at its end may be left out")
    add("--to", required=True, metavar="FORMAT", help=", ".join(formats()))
    add("--alpha", type=float, default=1.0, help="share of the update, WiSE-FT: 0 pretrained, 1 adapted (default)")
    add("--out", type=Path, help="folder (default: export_FORMAT in that of the run)")
    add("--uncalibrated", action="store_true", help="leave out the temperature that `kravl calibrate` has fitted")
    add("--force", action="store_true", help="replace an earlier export")
    add("--data-root", help="where the data set is of a run that an earlier release wrote")
    add("--plugins", nargs="+", default=[], help="packages besides kravl that the run's classes may come from")
    return parser
