"""All that is measured of a GPU, in one record: layers, attention, steps, growth, a job, and the goals beside it.

make gpu                                                   the tests marked gpu, this, and its section of README.md
python benchmarks/gpu.py                                   benchmarks/results/gpu-<card>.json
python benchmarks/gpu.py --device cpu --model tiny --json FILE   the same path in seconds; its figures mean nothing

Steps are of both towers, all blocks, under bfloat16 autocast where the card has it, else in single precision. "Full
fine-tuning" trains the matrices that KRAdapter adapts, in kravl's loop; "plain" is the loop of public code (steps.py),
whose KRAdapter is the published layer. Times are of CUDA events after a warm-up of clocks, medians over rounds; ratios
are medians within rounds. ``MFU %`` is a step's operations in matrix products and attention over its time and the
card's peak: of cards.json by its name, else what a large product reached in this run, which the record says. ``GB`` is
the most that PyTorch had allocated, weights, gradients and moments included. What does not fit is named.
"""

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from json import dumps, loads
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import attention
import job
import layer
import scale
import torch
from layers import MAIN, ours, theirs
from measure import Floor, copy_bandwidth, operations, ratio
from record import publish, record
from steps import KRAVL, MATRICES, STORED, Setting, Steps, clip_of_width

HERE = Path(__file__).parent
ASKED_OF = "H100"
KRA = "KRAdapter"
GB, TERA = 1e9, 1e12
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """A model of open_clip, and what is measured with it; ``classes`` of the plain loop, then of kravl's alone."""

    name: str
    width: int
    tokens: int
    batch: int
    classes: tuple[int, int] = (100, 1000)


SIZES = {
    "ViT-B-16": Size("ViT-B-16", 768, 197, 128),
    "ViT-L-14": Size("ViT-L-14", 1024, 257, 64),
    "ViT-H-14": Size("ViT-H-14", 1280, 257, 32),
}
TINY = "tiny"


@dataclass(frozen=True)
class Bench:
    """Where everything runs: the device and type of ``setting``, rounds, the peak in operations a second."""

    setting: Setting
    rounds: int
    floor: Floor
    peak: float
    missing: list[str]  # what did not fit, or ended early

    def attempt(self, what: str, rows: Callable[[], list[Row]]) -> list[Row]:
        """The rows; none where the GPU's memory runs out or a job fails, which is noted."""
        try:
            return rows()
        except torch.OutOfMemoryError:
            self.missing.append(what)
        except CalledProcessError as error:
            self.missing.append(f"{what} (exit status {error.returncode})")
        finally:
            gc.collect()  # modules refer to each other
            if self.setting.device == "cuda":
                torch.cuda.empty_cache()
        return []


def layers(bench: Bench, size: Size) -> list[Row]:
    """The two shapes of a block's MLP with the tokens of a batch."""
    device, dtype, bandwidth = bench.setting.device, bench.setting.dtype, copy_bandwidth(bench.setting.device, 3)
    compared = {ours(method): theirs(method) for method in MAIN}
    rows = []
    for out, into in ((4 * size.width, size.width), (size.width, 4 * size.width)):
        case = layer.Case.linear(f"{out}x{into}", size.batch * size.tokens, device, dtype)
        rows += layer.measure(case, bench.rounds, bench.floor, bandwidth, compared)
    return [{"model": size.name, **row} for row in rows]


def attentions(bench: Bench, size: Size) -> list[Row]:
    """An attention layer of a batch of images."""
    block = attention.Block(size.batch, size.tokens, size.width, bench.setting.device)
    rows = attention.measure(block, bench.rounds, Floor(bench.setting.device, torch.bfloat16))
    return [{"model": size.name, **row} for row in rows]


def steps(bench: Bench, size: Size, classes: int, plain: bool) -> list[Row]:
    """Steps of full fine-tuning, KRAdapter and LoRA in kravl's loop, and of the two in the plain loop."""
    setting, runs, loops = replace(bench.setting, loops=("kravl", "plain")[: 1 + plain]), {}, {}
    for method in (MATRICES, KRA, "LoRA"):
        made = Steps(size.name, method, classes, size.batch, setting)
        for loop in made.models:
            runs[method, loop] = partial(made.step, loop)
            loops[method, loop] = made
    keys = {key: ", ".join(key) for key in runs}
    times = bench.floor.beside({keys[key]: run for key, run in runs.items()}, bench.rounds)
    about = {"model": size.name, "classes": classes, "batch": size.batch}
    full = times[keys[MATRICES, "kravl"]]
    rows = []
    for (method, loop), run in runs.items():
        spent, done = times[keys[method, loop]], operations(run)
        median, slower = statistics.median(spent), times.get(keys.get((method, "plain"), ""))
        rows.append({
            **about, "method": method, "loop": loop, "ms": 1e3 * median, "images/s": size.batch / median,
            "/ full": ratio(spent, full), "x faster than plain": ratio(slower, spent) if slower else None,
            "GFLOP": done / 1e9, "MFU %": 100 * ratio([done / bench.peak] * len(spent), spent),
            "trained": sum(p.numel() for p in loops[method, loop].parameters[loop]),
        })  # fmt: skip
    return rows


def memory(bench: Bench, size: Size, classes: int) -> list[Row]:
    """The most that training takes, of a model alone on the device; nothing is known of a CPU's."""
    rows = []
    for method, loop in ((MATRICES, KRAVL), (KRA, KRAVL), (KRA, STORED), ("LoRA", KRAVL), ("LoRA", STORED)):
        made = Steps(size.name, method, classes, size.batch, replace(bench.setting, loops=(loop,)))
        if bench.setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # the second has the optimiser's moments from the start
            made.step(loop)
        held = torch.cuda.max_memory_allocated() / GB if bench.setting.device == "cuda" else None
        about = {"model": size.name, "classes": classes, "batch": size.batch, "method": method, "loop": loop}
        rows.append({**about, "GB": held})
        del made
        gc.collect()
    return rows


def growth(bench: Bench, size: Size, is_tiny: bool) -> list[Row]:
    """How a step of the smallest model grows with width, classes, batch and shots."""
    wide = {"widths": [512, 768, 1024], "classes": [10, 100, 1000], "batches": [32, 64, 128], "shots": [1, 4, 16]}
    small = {"widths": [64, 128], "classes": [2, 4], "batches": [1, 2], "shots": [1, 2]}
    options = argparse.Namespace(model=size.name, method=KRA, rounds=bench.rounds, blocks=1 if is_tiny else 12)
    vars(options).update(small if is_tiny else wide)
    return scale.measure(options, replace(bench.setting, blocks=None), bench.floor)


def jobs(device: str, is_tiny: bool) -> list[Row]:
    """One epoch of 16,000 images in 1,000 classes, from drawn files to metrics, as `kravl train` does it."""
    classes, batch = (2, 2) if is_tiny else (1000, 128)
    model = ["backbone=kravl_tiny"] if is_tiny else ["backbone=clip_vitb16", "backbone.build.pretrained=null"]
    epoch = ["optim.epochs=1", f"loading.batch_size={batch}", f"loading.min_batches={2 if is_tiny else 125}"]
    settings = ["evaluation=in_domain", "seed=1", *job.DRAWN, *job.ONE, *epoch, *model, "trainer.precision=auto"]
    settings.append(f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job.draw(folder, classes)
        place = [f"data_root={folder}", f"data.root={folder}/pictures"]
        return job.run(KRA, [*job.JOBS[KRA], *settings, *place], folder, torch.get_num_threads())


def goals(card: str, parts: dict[str, list[Row]]) -> list[Row]:
    """Each goal of the plan beside what was reached."""

    def found(title: str, column: str, **wanted: Any) -> float | None:
        rows = (row for row in parts.get(title, []) if all(row[key] == value for key, value in wanted.items()))
        return next((row[column] for row in rows), None)

    base = {"model": "ViT-B-16", "classes": 1000, "method": KRA, "loop": "kravl"}
    told = [
        ("KRAdapter's step, of full fine-tuning's", 1.05, True, found(STEPS, "/ full", **base)),
        ("times as fast as the published layer, 100 classes", 1.5, False,
         found(STEPS, "x faster than plain", **{**base, "classes": 100})),
        ("model FLOP utilisation, %", 45.0, False, found(STEPS, "MFU %", **base)),
        ("an epoch of 16,000 images, s", 60.0, True, found(JOB, "s", phase="train")),
        ("ViT-H/14 with 1,000 classes, GB", 40.0, True, found(MEMORY, "GB", model="ViT-H-14", method=KRA, loop=KRAVL)),
    ]  # fmt: skip
    rows = []
    for goal, bound, is_most, reached in told:
        met = None if reached is None else reached <= bound if is_most else reached >= bound
        on = "" if ASKED_OF in card else f", asked of an {ASKED_OF}"
        answer = "not measured" if met is None else f"{'yes' if met else 'no'}{on}"
        rows.append(
            {"goal": goal, "asked": f"{'<=' if is_most else '>='} {bound:g}", "reached": reached, "met": answer}
        )
    return rows


LAYERS, ATTENTION, STEPS = "Layers, forward and backward", "Attention in bf16", "Training steps of both towers"
MEMORY, GROWTH, JOB = "Memory of training", "Growth", "A job: an epoch of 16,000 images in 1,000 classes"


def measure(bench: Bench, sizes: Sequence[Size], is_tiny: bool) -> Iterator[dict[str, list[Row]]]:
    """Every table by title, without those of which nothing fits; after each piece of work those so far."""
    parts: dict[str, list[Row]] = {}
    for title, what, rows in _work(bench, sizes, is_tiny):
        if found := bench.attempt(what, rows):
            parts.setdefault(title, []).extend(found)
        yield parts


def _work(bench: Bench, sizes: Sequence[Size], is_tiny: bool) -> Iterator[tuple[str, str, Callable[[], list[Row]]]]:
    """The table that it is for, what it is, and what makes its rows."""
    for size in sizes:
        few, many = size.classes
        yield STEPS, f"steps of {size.name}, {few} classes, with the plain loop", partial(steps, bench, size, few, True)
        yield STEPS, f"steps of {size.name}, {many} classes", partial(steps, bench, size, many, False)
        yield MEMORY, f"memory of {size.name}", partial(memory, bench, size, many)
        yield LAYERS, f"layers of {size.name}", partial(layers, bench, size)
        if bench.setting.dtype == torch.bfloat16:
            yield ATTENTION, f"attention of {size.name}", partial(attentions, bench, size)
    yield JOB, "the job", partial(jobs, bench.setting.device, is_tiny)
    yield GROWTH, "growth", partial(growth, bench, sizes[0], is_tiny)


def peak_of(card: str, dtype: torch.dtype, floor: Floor) -> tuple[float, str]:
    """Operations a second that the card has at most, and where that is from."""
    floor.beside({}, 9)
    name = str(dtype).removeprefix("torch.")
    for known in loads((HERE / "cards.json").read_text(encoding="utf-8")):
        if known["name"] in card and name in known:
            return known[name] * TERA, known["source"]
    return 1e9 * floor.facts()["product_gflop_per_s"], "a large product in this run: the card's own peak is not known"


def run(options: argparse.Namespace, card: str) -> tuple[dict[str, Any], Path]:
    """The record, and where it is kept: after each piece of work, so that none is lost to a later one."""
    on_gpu, is_tiny = options.device == "cuda", TINY in options.model
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    setting = Setting(options.device, torch.bfloat16 if has_bf16 else torch.float32)
    floor, rounds = Floor(options.device, setting.dtype), 1 if is_tiny else options.rounds
    peak, source = peak_of(card, setting.dtype, floor)
    bench = Bench(setting, rounds, floor, peak, [])
    sizes = [SIZES[name] for name in options.model if name != TINY]
    if is_tiny:
        sizes = [Size(clip_of_width(64, 1), 64, 50, 2, (3, 4))]
    file = options.json or HERE / f"results/gpu-{card.lower().replace(' ', '-').replace('/', '-')}.json"
    for parts in measure(bench, sizes, is_tiny):
        facts = {
            "settings": {"dtype": str(setting.dtype).removeprefix("torch."), "rounds": rounds},
            "peak": {"peak_tflop_per_s": peak / TERA, "peak_from": source},
            "left_out": {"did_not_fit": "; ".join(bench.missing) or "nothing"},
            "floor": floor.facts(),
        }
        found = record(f"On a GPU: {card}", goals(card, {} if is_tiny else parts), **facts, parts=parts)
        file.write_text(dumps(found), encoding="utf-8")
    return found, file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--model", nargs="+", default=list(SIZES), choices=[*SIZES, TINY], help="tiny checks the path")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="a file for the record; benchmarks/results/gpu-<card>.json on a GPU")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --device cpu --model tiny checks the path")
    if options.device == "cpu" and options.json is None:
        parser.error("give --json: a CPU's record does not belong to the results of GPUs")
    publish(*run(options, torch.cuda.get_device_name() if options.device == "cuda" else "CPU"))


if __name__ == "__main__":
    main()
