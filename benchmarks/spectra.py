"""Seconds that one record of spectra costs: `AdapterSet.statistics` (double precision, no directions), fast and exact.

python benchmarks/spectra.py --model ViT-B-32     prints a table, then JSON in one line; processor time, one thread
python benchmarks/spectra.py --quick              checks itself on kravl-tiny; its figures mean nothing
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from record import publish, record

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.update_spectra import Diagnosis
from kravl.backbones import tiny


def seconds(measured: Callable[[], object]) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    measured()
    return round(time.process_time() - begin, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="any open_clip model, randomly initialised")
    parser.add_argument("--exact", action="store_true", help="also full decompositions, which take minutes")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiny.register()
    model = open_clip.create_model("kravl-tiny" if options.quick else options.model)
    adapters = inject(model, KRAdapter, ["*.attn.qkv", "*.mlp.c_*"])
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    fast = Diagnosis(adapters)
    taken = {
        "statistics": seconds(adapters.statistics),
        "fast, first": seconds(fast.quantities),
        "fast, later": seconds(fast.quantities),
        "singular values at the end": seconds(fast.singular_values),
    }
    if options.exact or options.quick:
        taken["exact"] = seconds(Diagnosis(adapters, "exact").quantities)
    rows = [{"record": name, "seconds": time_} for name, time_ in taken.items()]
    settings = {"model": options.model, "matrices": len(adapters.adapters)}
    publish(record("Spectra of a run", rows, settings=settings), options.json)


if __name__ == "__main__":
    main()
