"""An upload as a classifier sees it, prepared in this process: from a file or the archive, without a pool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.bounds import Bounds
from workers.classifier import Item, Picture
from workers.media import prepare
from workers.store import Store
from workers.upload import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an upload is prepared: within which bounds, and whether text in its pictures is read."""

    bounds: Bounds
    #: Returns the text in pictures; None where it is not read.
    text: Callable[[Sequence[Picture]], str] | None = None

    def item(self, upload: Upload, store: Store) -> Item:
        """Return the upload as the pool's preparers would hand it to a classifier.

        Raises:
            MediaRefusedError: A medium is broken, refused or out of bounds.
            MediaUnavailableError: The store could not deliver a medium in time.
        """
        pictures = prepare(upload, store, self.bounds).pictures
        read = self.text(pictures) if self.text is not None and pictures else ""
        return Item(pictures=pictures, caption=upload.caption, text_in_image=read)
