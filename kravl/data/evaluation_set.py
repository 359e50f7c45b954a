"""How an evaluation set's classes lie among the classes that were trained."""

from collections.abc import Mapping, Sequence

from kravl.data.source import Source
from kravl.runtime.errors import InputError, nearest

Columns = tuple[int, ...] | tuple[tuple[int, ...], ...] | None


def match_classes(source: Source, class_ids: Sequence[str]) -> Columns:
    """Positions of the set's classes among the trained ``class_ids``; None if they are all of them, in order.

    Labels of the set stay positions in its own class list: column ``positions[label]`` of the logits is the true one.
    A class that several trained ones stand for has a tuple of positions; then every class has.

    Raises:
        InputError: the set has classes that were not trained; each is named, with the nearest trained one.
    """
    position = {class_id: i for i, class_id in enumerate(class_ids)}
    groups = source.trained_ids()
    missing = [c for group in groups for c in group if c not in position]
    if missing:
        named = "; ".join(f"{c!r}, nearest {nearest(c, class_ids, 1)[0]!r}" for c in missing[:10])
        more = f"; and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise InputError(f"{source.name}: {len(missing)} classes are not among the trained ones: {named}{more}")
    if any(len(group) > 1 for group in groups):
        return tuple(tuple(position[c] for c in group) for group in groups)
    positions = tuple(position[c] for (c,) in groups)
    return None if positions == tuple(range(len(class_ids))) else positions


def own_columns(sources: Mapping[str, Source]) -> dict[str, Columns]:
    """Columns for sets that are each scored among their own classes, laid side by side in the order of ``sources``."""
    columns: dict[str, Columns] = {}
    start = 0
    for name, source in sources.items():
        columns[name] = tuple(range(start, start + len(source.class_ids)))
        start += len(source.class_ids)
    return columns
