"""Tables of the documentation, made from the files that they are about while the site is built."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- (table|file|notebook): ([\w./]+) -->")
RELATIVE = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#]+)\)")
LINK = re.compile(r"(https://\S+?)(?=[).,;]*(?:\s|$))")
Methods = dict[str, dict[str, Any]]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' hook: each mark of a page becomes its table, or the text of a file or a notebook of the repository."""
    makers = {"table": lambda name: TABLES[name](), "file": file_text, "notebook": notebook_text}
    return MARK.sub(lambda mark: makers[mark[1]](mark[2]), markdown)


def notebook_text(name: str) -> str:
    """The cells of a notebook in order, without their outputs and without its first heading, which the page has."""
    cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    written = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts]
    return "\n\n".join([written[0].partition("\n")[2].strip(), *written[1:]])


def file_text(name: str) -> str:
    """A Markdown file without its first heading, which the page has; a link to a file is the file's path."""
    path = ROOT / name

    def spelt(link: re.Match[str]) -> str:
        target = (path.parent / link[2]).resolve().relative_to(ROOT)
        return link[1] if str(target) in link[1] else f"{link[1]} (`{target}`)"

    return RELATIVE.sub(spelt, path.read_text(encoding="utf-8").partition("\n")[2]).strip("\n")


def methods() -> Methods:
    """The settings of each file of configs/method, and the first line that it says of itself as ``says``."""
    found: Methods = {}
    for path in sorted((ROOT / "configs/method").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "@package" not in line]
        found[path.stem] = {**yaml.safe_load(text), "says": comments[0]}
    return found


def adapter_of(settings: dict[str, Any]) -> str | None:
    """The file of configs/adapter that a method puts on matrices; None where it adapts none."""
    if settings.get("sites", "") is None:
        return None
    chosen = [entry.get("override /adapter") for entry in settings.get("defaults", []) if isinstance(entry, dict)]
    return next((name for name in chosen if name), "kra")


def adapter_docstrings(name: str) -> tuple[str, str]:
    """The first line of the docstrings of an adapter's class, its formula, and of its module, with the paper."""
    target = yaml.safe_load((ROOT / f"configs/adapter/{name}.yaml").read_text(encoding="utf-8"))["_target_"]
    module, _, wanted = target.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == wanted]
    formula, paper = ((ast.get_docstring(node) or "").partition("\n")[0] for node in (classes[0], tree))
    return formula, paper


def adapters_table() -> str:
    """A row for each method that adapts matrices."""
    rows = [["method", "formula, as in its class", "what it is"]]
    for name, settings in methods().items():
        if (adapter := adapter_of(settings)) and name != "custom":
            formula, paper = adapter_docstrings(adapter)
            # a setting of another method's class says itself what it is
            rows.append([f"`{name}`", formula, paper if paper.partition(":")[0].lower() == name else settings["says"]])
    return _table(rows)


def heads_table() -> str:
    """A row for each method that adapts no matrix."""
    rows = [["method", "kind", "what trains"]]
    for name, settings in methods().items():
        if adapter_of(settings) is None:
            rows.append([f"`{name}`", _kind(settings), settings["says"]])
    return _table(rows)


def _kind(settings: dict[str, Any]) -> str:
    if (settings.get("optim") or {}).get("epochs") == 0:
        return "nothing"
    if settings.get("stages"):
        return "stages"
    if settings.get("context_tokens"):
        return "prompt"
    return "head" if settings.get("linear_head") or settings.get("head") else "parameters"


def shifts_table() -> str:
    """A row for each file of configs/evaluation."""
    rows = [["evaluation", "what it is"]]
    for path in sorted((ROOT / "configs/evaluation").glob("*.yaml")):
        rows.append([f"`{path.stem}`", path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    plain = [[LINK.sub(r"<\1>", cell.replace("|", "\\|").replace("*", "\\*")) for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in plain]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


TABLES: dict[str, Callable[[], str]] = {"adapters": adapters_table, "heads": heads_table, "shifts": shifts_table}
