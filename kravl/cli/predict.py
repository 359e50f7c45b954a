"""``kravl predict``: classes of images, by a finished run or by any CLIP with class names."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kravl.cli.main import EXIT_FAILED, framed
from kravl.runtime.errors import InputError, first_line, unknown
from kravl.runtime.files import require_writable

if TYPE_CHECKING:
    from kravl.data.loading.named_files import NamedFiles
    from kravl.run.finished.calibration import Calibration
    from kravl.run.prediction.scorer import Scorer
    from kravl.tracking.run_folder import RunFolder

BATCH_SIZE, TOP = 64, 5
DEVICES = ("auto", "cpu", "cuda", "hpu", "mps", "mtia", "xpu")  # to name; others come with their packages
MOST_BATCH, MOST_WORKERS = 2**16, 256
PROMPT = "a photo of a {}."
DESCRIPTION = """Score images with a finished run, whose folder is all it needs, or zero-shot with any CLIP.

An output line is a file: its path, the likeliest classes with their probabilities (softmax at the model's
logit scale, calibrated where `kravl calibrate` has fitted a temperature), and two scores of how unlike all
classes it is: a low first probability, and a high energy, which is -log sum exp of the logits.

--classes with a run scores other classes with its adapted towers, where its method is not tied to its own."""
EXAMPLES = """examples:
  kravl predict runs/clip_vitb16_kra_16shot/seed1 photos/ --out predictions.csv --sheet predictions.png
  kravl predict runs/clip_vitb16_kra_16shot/seed1 'photos/**/*.jpg' one.png --top 3
  find /data -name '*.jpg' | kravl predict runs/clip_vitb16_kra_16shot/seed1 - --out all.jsonl --workers 8
  kravl predict runs/clip_vitb16_kra_16shot/seed1 --classes "cat,dog" photos/
  kravl predict --model ViT-B-32 --pretrained laion2b_s34b_b79k --classes "cat,dog" photos/
  kravl predict --model kravl-tiny --pretrained kravl --classes names.txt --prompt "a drawing of a {}." drawings/

With --out the same command resumes after a stop. exit status: 0 done; 1 files could not be read, which are listed, and
the rest is predicted; 2 a mistake in the command or its files; 75 stopped on request; 130 interrupted"""


@framed
def main(arguments: Sequence[str]) -> int:
    """Predict; what is not there is told before torch is loaded."""
    options = _parser().parse_args(arguments)
    given = list(options.names)
    _check_combination(options)
    from kravl.data.loading.named_files import NamedFiles

    _check_targets(options)
    if options.model is None:
        from kravl.tracking.run_folder import find_run

        options.run = find_run(given.pop(0))
    files = NamedFiles(given, sys.stdin.buffer)
    if options.classes is not None:
        options.classes = _class_names(options.classes)
    return _predict(options, files)


def _check_combination(options: argparse.Namespace) -> None:
    """Raise InputError for options that do not go together."""
    if options.model is None and options.pretrained:
        raise InputError("--pretrained is of --model; a run has its own weights")
    if options.prompt and options.classes is None:
        raise InputError("--prompt words the classes of --classes; a run has prompts for its own")
    if options.model is not None and options.classes is None:
        raise InputError("--model needs --classes: zero-shot scores images among classes that you name")
    if options.model is not None and (options.uncalibrated or options.alpha != 1):
        raise InputError("--alpha and --uncalibrated are of a run; --model scores zero-shot")


class _Plan(NamedTuple):
    """What is to be scored, known before any weights are loaded.

    Args:
        settings: what the predictions depend on.
        load: gives the scorer of these classes.
    """

    class_names: Sequence[str]
    settings: dict[str, Any]
    load: Callable[[], "Scorer"]


def _predict(options: argparse.Namespace, files: "NamedFiles") -> int:
    from kravl.run.prediction.output import PredictionFile, format_of, require_resumable
    from kravl.run.prediction.stream import Job, listed, predict_files

    options.device = device_of(options.device)
    class_names, settings, load = _of_run(options) if options.model is None else _zero_shot(options)
    top = min(TOP, len(class_names)) if options.top is None else options.top
    if top > len(class_names):
        raise InputError(f"--top {top}: the model has {len(class_names)} classes")
    if options.out:
        settings["top"] = top
        require_resumable(options.out, settings, options.force)
    scorer, batches = load(), (options.batch_size, options.workers)
    job = Job(class_names, top, *batches, options.sheet, settings["model"], settings.get("temperature") or 1.0)
    with ExitStack() as stack:
        target: Any = format_of(options.out.suffix[1:] if options.out else options.format, top)
        if options.out:
            target = stack.enter_context(PredictionFile(options.out, target, settings, options.force, class_names))
        else:
            sys.stdout.write(target.header)
        unreadable = predict_files(scorer, files, job, target)
    if unreadable.count:
        print(f"{unreadable.count:,} files could not be read:\n{listed(unreadable)}", file=sys.stderr)
    return EXIT_FAILED if unreadable.count else 0


def _of_run(options: argparse.Namespace) -> _Plan:
    from kravl.run.finished.calibration import adapter_sha256, read_calibration
    from kravl.run.finished.restore import load_run, scored_classes
    from kravl.run.finished.saved import saved_config
    from kravl.run.prediction.other_classes import check_other_classes, other_prompts, score_other_classes
    from kravl.run.prediction.scorer import Scorer, check_alpha

    folder: RunFolder = options.run
    others: Sequence[str] | None = options.classes
    root = {} if options.data_root is None else {"data_root": options.data_root}
    cfg = saved_config(folder, {**root, "plugins": options.plugins})
    check_alpha(cfg, options.alpha)
    if others:
        check_other_classes(cfg)
    if options.prompt and cfg.context_tokens:
        raise InputError(f"--prompt: the context that {cfg.label} has learned takes the place of words; leave it out")
    name, (class_names, known) = folder.path.resolve(), scored_classes(folder, cfg)
    settings: dict[str, Any] = {"model": f"{name.parent.name}/{name.name}", "adapter": adapter_sha256(folder)[:16]}
    settings |= {"alpha": options.alpha, "temperature": _temperature(read_calibration(folder), options)}
    prompts = other_prompts(known, options.prompt) if others else ()
    if others:
        settings |= {"classes": list(others), "prompts": list(prompts)}

    def load() -> Scorer:
        given = {"data_root": options.data_root, "plugins": options.plugins, "device": options.device}
        run = load_run(folder, **given)
        columns = score_other_classes(run, others, prompts) if others else None
        return Scorer.of_run(run, options.alpha, columns=columns)

    return _Plan(others or class_names, settings, load)


def _temperature(known: "Calibration | None", options: argparse.Namespace) -> float | None:
    """What the logits are divided by, which is told; None where they are left as they are."""
    if known is None or options.uncalibrated:
        return None
    if options.classes or options.alpha != 1:
        what = "other classes" if options.classes else f"alpha={options.alpha:g}"
        print(
            f"not calibrated: the temperature of the run is of its adapted model and classes, not of {what}",
            file=sys.stderr,
        )
        return None
    print(f"calibrated: {known.describe()}", file=sys.stderr)
    return known.temperature


def _zero_shot(options: argparse.Namespace) -> _Plan:
    from kravl.api.settings import only_weights
    from kravl.backbones.clip import ClipClassifier
    from kravl.data.templates import check_templates
    from kravl.run.prediction.scorer import Scorer
    from kravl.runtime.errors import require_safe_versions

    require_safe_versions()
    prompts = check_templates("--prompt", options.prompt or [PROMPT])
    pretrained = options.pretrained or only_weights(
        options.model, f"--model {options.model}: name its weights, --pretrained"
    )
    known = {"name": options.model, "pretrained": pretrained, "logit_scale": "learned"}
    settings = {"model": f"{options.model} {pretrained}", "classes": list(options.classes)}
    settings["prompts"] = list(prompts)

    def load() -> Scorer:
        return Scorer(ClipClassifier(options.classes, prompts, **known).to(options.device))

    return _Plan(options.classes, settings, load)


def device_of(name: str) -> str:
    """What torch calls the device ``name``, or the one that ``auto`` finds; InputError if it is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise InputError(f"{unknown('--device', name, DEVICES)}; others need their package (npu: torch_npu)") from error
    if kind == "meta":
        raise InputError(f"--device {name}: a tensor has no values there; cpu is always there")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:  # the last of a back-end that is not installed
        raise InputError(f"--device {name}: {first_line(error).partition('. ')[0]}; cpu is always there") from error
    return name


def _class_names(given: str) -> tuple[str, ...]:
    """Names with commas between them, or those in a file, one a line."""
    from kravl.data.inspect.file_kinds import is_file
    from kravl.data.source import readable_names, refuse_control, refuse_duplicates
    from kravl.runtime.files import read_text

    in_file = is_file(given)
    if "," not in given and not in_file and (Path(given).suffix or "/" in given):
        raise InputError(f"--classes: no file {given!r}")
    named = [name for name in read_text(given).splitlines() if name.strip()] if in_file else given.split(",")
    if empty := [str(place) for place, name in enumerate(named, 1) if not name.strip()]:
        raise InputError(f"--classes {given[:80]!r}: name {' and '.join(empty)} of {len(named)} is empty")
    refuse_control("--classes", named)
    refuse_duplicates("--classes", named)
    if len(named) < 2:
        raise InputError(f"--classes {given[:80]!r}: {len(named)} class; every image would be of it; name two or more")
    return readable_names("--classes", named)


def _check_targets(options: argparse.Namespace) -> None:
    """Raise InputError for a target that cannot be written, before anything long."""
    if options.out and options.out.suffix not in (".csv", ".jsonl"):
        raise unknown("ending of --out", options.out.suffix, (".csv", ".jsonl"))
    if options.sheet and options.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise unknown("ending of --sheet", options.sheet.suffix, (".png", ".jpg", ".webp"))
    for path in (options.out, options.sheet):
        if path and not path.parent.is_dir():
            raise InputError(f"no folder {str(path.parent)!r} for {path.name}; make it first")
    unfinished = options.out and options.out.with_name(f"{options.out.name}.unfinished.json").exists()
    for option, path in (("--out", options.out), ("--sheet", options.sheet)):
        if path and path.exists() and not options.force and not (unfinished and path is options.out):
            raise InputError(f"{path} is there already; --force writes it anew")
        if path:
            require_writable(path, f"pass {option} FILE")


def _parser() -> argparse.ArgumentParser:
    usage = "kravl predict RUN IMAGES... [options]"
    parser = argparse.ArgumentParser("kravl predict", usage, DESCRIPTION, EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    images = "a run's folder (not with --model; the hash at its end may be left out), then files, folders, patterns; "
    images += "- reads a file a line"
    add("names", nargs="+", metavar="RUN IMAGES", help=images)
    add("--model", help="zero-shot: any CLIP of open_clip, kravl-tiny, hf-hub:org/repo or local-dir:/folder")
    add("--pretrained", help="its weights: a tag of open_clip, or a file; needed where there are several")
    add("--classes", help="names with commas between them, or a file with one a line; with a run: in place of its own")
    add(
        "--prompt",
        action="append",
        help=f"template with {{}} for the name; may be given again (default: {PROMPT!r}, or a run's own)",
    )
    add("--out", type=Path, help="FILE.csv or FILE.jsonl, resumable (default: standard output)")
    add("--format", choices=("csv", "jsonl"), default="csv", help="of standard output")
    add("--sheet", type=Path, help="FILE.png: a contact sheet, the classes by how often they were said")
    add("--top", type=whole(1, 10**6), help=f"classes a line (default: {TOP}, or all if there are fewer)")
    add("--alpha", type=float, default=1.0, help="share of the update, WiSE-FT: 0 pretrained, 1 adapted (default)")
    add("--uncalibrated", action="store_true", help="leave out the temperature that `kravl calibrate` has fitted")
    add(
        "--batch-size",
        type=whole(1, MOST_BATCH),
        default=BATCH_SIZE,
        help="halved if memory runs out (default: 64)",
    )
    add("--workers", type=whole(0, MOST_WORKERS), default=0, help="processes that decode images (default: none)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--data-root", help="where the data set is of a run that an earlier release wrote")
    add("--plugins", nargs="+", default=[], help="packages besides kravl that the run's classes may come from")
    add("--force", action="store_true", help="write existing files anew")
    return parser


def whole(low: int, high: int) -> Any:
    """The type of an option that is a whole number from ``low`` to ``high``."""

    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number
