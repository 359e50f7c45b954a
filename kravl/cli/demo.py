"""``kravl demo``: a page on this machine where images are scored before and after adaptation, side by side."""

import argparse
import os
import signal
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kravl.cli.main import framed
from kravl.cli.predict import device_of, whole
from kravl.runtime.errors import InputError

if TYPE_CHECKING:
    from kravl.tracking.run_folder import RunFolder

NEEDED = ("starlette", "uvicorn")
TOP, MOST_SHOWN = 5, 20
DESCRIPTION = """Open a page where images are dropped and scored by a finished run: by the zero-shot model and the
adapted one side by side, and with where each looks, if it is a vision transformer.

Images go to this process and no further, and none is kept. It answers on this machine's loopback address alone, and
only who has the address with its token. Needs: pip install 'kravl[demo]'"""
EXAMPLES = """examples:
  kravl demo runs/clip_vitb16_kra_16shot/seed1
  kravl demo runs/clip_vitb16_kra_16shot/seed1 --alpha 0.5 --device cpu
  kravl demo runs/clip_vitb16_kra_16shot/seed1 --no-browser --port 8650   # on a server; on the desk:
  ssh -L 8650:127.0.0.1:8650 server                                       # and open the address that it printed

exit status: 0 ended with Ctrl-C; 2 a mistake in the command or its files"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; what is not there is told before torch is loaded."""
    options = _parser().parse_args(arguments)
    from kravl.tracking.run_folder import find_run

    folder = find_run(options.run)
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise InputError(f"kravl demo needs {' and '.join(missing)}: pip install 'kravl[demo]'")
    return _serve(options, folder)


def _serve(options: argparse.Namespace, folder: "RunFolder") -> int:
    from kravl.demo.comparison import Comparison
    from kravl.demo.server import LOOPBACK, Demo, listen, server
    from kravl.run.finished.saved import saved_config
    from kravl.run.prediction.scorer import check_alpha

    check_alpha(saved_config(folder, {"plugins": options.plugins}), options.alpha)
    with listen(options.port) as listening:
        device = device_of(options.device)
        loading = {"data_root": options.data_root, "plugins": options.plugins, "device": device}
        demo = Demo(Comparison(folder, options.alpha, **loading), options.top)
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        print(f"{address}{demo.path}\nCtrl-C ends it", flush=True)
        if options.browser and _has_display():
            webbrowser.open(address + demo.first)
        with suppress(KeyboardInterrupt):
            server(demo).run(sockets=[listening])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # where an image is still waited for, another Ctrl-C ends it at once
    print("ended", file=sys.stderr)
    return 0


def _has_display() -> bool:
    """Whether a window can open: where none can, Python would start a browser in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kravl demo", "kravl demo RUN [options]", DESCRIPTION, EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run; the hash at its end may be left out")
    add("--port", type=whole(0, 65535), help="of the page; 0: any (default: the first that is free from 8650)")
    add("--no-browser", dest="browser", action="store_false", help="print the address and open nothing")
    add("--alpha", type=float, default=1.0, help="share of the update to begin with, WiSE-FT (default: 1, adapted)")
    add("--top", type=whole(1, MOST_SHOWN), default=TOP, help=f"classes of an image (default: {TOP})")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--data-root", help="where the data set is of a run that an earlier release wrote")
    add("--plugins", nargs="+", default=[], help="packages besides kravl that the run's classes may come from")
    return parser
