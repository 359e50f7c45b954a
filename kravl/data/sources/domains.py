"""Domain-shift sets laid out as ``root/<domain>/<class>/<image>``, such as PACS: one domain, or all but one."""

from kravl.data.catalog import find_folder
from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source
from kravl.data.sources.folder import class_folders, folder_samples
from kravl.runtime.errors import InputError, unknown


class Domains(Source):
    """The images of one domain, or of every domain but one.

    Args:
        root: the data root, or the set's own folder; see `catalog.find_folder`.
        domain: the one to take.
        left_out: in place of ``domain``: the one to leave out, for training on all the others.
        holdout: every ``holdout``-th image of each class and domain, by sorted file name, is test and the rest is
            train; None makes everything test, as for a domain that is not trained on.

    Raises:
        InputError: no such domain (the nearest is named), both or neither of the two, or a holdout below 2.
    """

    def __init__(
        self,
        name: str,
        root: str,
        domain: str | None = None,
        holdout: int | None = None,
        left_out: str | None = None,
        templates: str = "single",
    ) -> None:
        self._folder = find_folder(name, root)
        domains = class_folders(name, self._folder)
        if (domain is None) == (left_out is None):
            raise InputError(f"{name}: give either domain or left_out, one of {', '.join(domains)}")
        chosen = domain if domain is not None else left_out
        if chosen not in domains:
            raise unknown(f"domain of {name}", chosen, domains)
        if holdout is not None and holdout < 2:
            raise InputError(f"{name}: holdout is {holdout}; one image in how many is test: at least 2, or null")
        self.domains = (chosen,) if left_out is None else tuple(d for d in domains if d != left_out)
        self._holdout = holdout
        splits = ("test",) if holdout is None else ("train", "test")
        present = {d: class_folders(name, self._folder / d) for d in self.domains}
        classes = sorted({c for folders in present.values() for c in folders})
        identity = (str(self._folder.resolve()), *self.domains)
        super().__init__(name, classes, splits, identity, templates=templates)
        self._present = present

    def overlaps(self, other: Source) -> bool:
        """Whether a domain of the one is a domain of the other."""
        return (
            isinstance(other, Domains)
            and self._folder.resolve() == other._folder.resolve()
            and not set(self.domains).isdisjoint(other.domains)
        )

    def samples(self, split: str) -> Samples:
        """The images sorted by domain, then by class, then by file name."""
        parts = [self._domain(d, split) for d in self.domains]
        if len(parts) == 1:
            return parts[0]
        names = tuple(f"{d}/{n}" for d, part in zip(self.domains, parts, strict=True) for n in part.names)
        labels = tuple(label for part in parts for label in part.labels)
        return Samples(names, labels, FileOpener(self._folder, names))

    def _domain(self, domain: str, split: str) -> Samples:
        label_of = {c: i for i, c in enumerate(self.class_ids) if c in self._present[domain]}
        everything = folder_samples(self._folder / domain, label_of)
        if self._holdout is None:
            return everything
        place = _places(everything.labels)
        held_out = [place[i] % self._holdout == self._holdout - 1 for i in range(len(everything))]
        return everything.subset([i for i, out in enumerate(held_out) if out == (split == "test")])


def _places(labels: tuple[int, ...]) -> list[int]:
    """The place of each image within its class, from 0; ``labels`` are sorted by class."""
    first: dict[int, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(label, i)
    return [i - first[label] for i, label in enumerate(labels)]
