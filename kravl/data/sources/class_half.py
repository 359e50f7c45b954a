"""Base-to-new generalisation (Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557): half of a set's classes."""

from dataclasses import replace

from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, unknown

CHOICES = ("all", "base", "new")


class ClassHalf(Source):
    """The first ceil(n / 2) of a set's n classes (``base``) or the others (``new``), labelled from 0.

    Few-shot images are drawn from all classes first, as CoCoOp does: the draw of a class depends on those before it.

    Raises:
        InputError: an unknown half, or a single class, whose new half is empty.
    """

    def __init__(self, source: Source, half: str) -> None:
        if half not in CHOICES[1:]:
            raise unknown("half of the classes", half, CHOICES[1:])
        num_base = (len(source.class_ids) + 1) // 2
        self.whole, self.half = source, half
        self._labels = range(num_base) if half == "base" else range(num_base, len(source.class_ids))
        super().__init__(
            f"{source.name} ({half} classes)",
            [source.class_ids[label] for label in self._labels],
            source.splits,
            (*source.identity, half),
            [source.class_names[label] for label in self._labels],
        )
        self.templates = source.templates
        if source.descriptions is not None:
            self.descriptions = tuple(source.descriptions[label] for label in self._labels)
        self.divided = source.divided

    def drawn_from(self) -> Source:
        return self.whole

    def keep(self, samples: Samples) -> Samples:
        indices = [i for i, label in enumerate(samples.labels) if label in self._labels]
        labels = tuple(self._labels.index(samples.labels[i]) for i in indices)
        return replace(samples.subset(indices), labels=labels)

    def samples(self, split: str) -> Samples:
        """The half's images, in the order of the whole set."""
        return self.keep(self.whole.split(split))


class OtherHalf(ClassHalf):
    """The classes that a run on ``data.classes=base`` (or ``new``) does not train on.

    Raises:
        InputError: ``source`` is no half.
    """

    def __init__(self, source: Source) -> None:
        if not isinstance(source, ClassHalf):
            raise InputError(f"{source.name} is trained on all its classes; train on a half with data.classes=base")
        super().__init__(source.whole, "new" if source.half == "base" else "base")


def chosen_classes(source: Source, choice: str) -> Source:
    """``source`` itself for ``all``, else the ``base`` or ``new`` half of its classes.

    Raises:
        InputError: an unknown choice.
    """
    if choice not in CHOICES:
        raise unknown("data.classes", choice, CHOICES)
    return source if choice == "all" else ClassHalf(source, choice)
