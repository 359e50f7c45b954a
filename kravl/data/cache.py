"""Keep decoded images in memory, so that a small training set is read and decoded once."""

from PIL import Image

from kravl.data.source import Samples

MAX_BYTES = 2 * 2**30


class Cache:
    """The images of ``samples`` as RGB, kept from their first use until ``max_bytes`` of pixels are held."""

    def __init__(self, samples: Samples, max_bytes: int = MAX_BYTES) -> None:
        self.samples = samples
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._images: dict[int, Image.Image] = {}

    def image(self, index: int) -> Image.Image:
        """The image at ``index``; callers share it and must not draw on it."""
        if index in self._images:
            return self._images[index]
        image = self.samples.image(index)
        size = 3 * image.width * image.height
        if self.num_bytes + size <= self._max_bytes:
            self._images[index] = image
            self.num_bytes += size
        return image

    def fill(self) -> None:
        """Decode now what fits; worker processes that are forked afterwards share the pixels."""
        for index in range(len(self.samples)):
            if self.num_bytes >= self._max_bytes:
                return
            self.image(index)
