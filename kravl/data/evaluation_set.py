"""How an evaluation set's classes lie among the classes that were trained."""

from collections.abc import Sequence

from kravl.data.source import Source
from kravl.errors import InputError, nearest


def match_classes(source: Source, class_ids: Sequence[str]) -> tuple[int, ...] | None:
    """Positions of the set's classes among the trained ``class_ids``; None if they are all of them, in order.

    Labels of the set stay positions in its own class list: column ``positions[label]`` of the logits is the true one.

    Raises:
        InputError: the set has classes that were not trained; each is named, with the nearest trained one.
    """
    position = {class_id: i for i, class_id in enumerate(class_ids)}
    missing = [c for c in source.class_ids if c not in position]
    if missing:
        named = "; ".join(f"{c!r}, nearest {nearest(c, class_ids, 1)[0]!r}" for c in missing[:10])
        more = f"; and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise InputError(f"{source.name}: {len(missing)} classes are not among the trained ones: {named}{more}")
    positions = tuple(position[c] for c in source.class_ids)
    return None if positions == tuple(range(len(class_ids))) else positions
