"""What can be exported and where to, asked before anything is loaded."""

from pathlib import Path

from kravl.runtime.errors import InputError, unknown

ABOUT, CARD = "export.json", "README.md"


def formats() -> list[str]:
    """The names of what a run can be exported to: the files of `kravl.export.formats`."""
    return sorted(path.stem for path in (Path(__file__).parent / "formats").glob("*.py") if path.stem != "__init__")


def check_target(to: str, out: Path, force: bool) -> None:
    """Raise InputError for no format, and a folder that is there, unless ``force`` and it is an export or empty."""
    if to not in formats():
        raise unknown("format", to, formats())
    if not out.parent.is_dir():
        raise InputError(f"no folder {str(out.parent)!r} for {out.name}; make it first")
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out} is there already; --force replaces it, --out FOLDER writes another one")
    if not out.is_dir() or (any(out.iterdir()) and not (out / ABOUT).is_file()):
        raise InputError(f"{out} is no export of kravl, which --force would replace; remove it yourself")
