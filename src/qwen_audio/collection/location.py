"""Where a collection's table is: in a folder, or below a prefix of object storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_audio.errors import CollectionError, OptionError
from qwen_audio.paths import is_uri, path_from_text

__all__ = ["TableLocation"]

_SCHEMES = ("s3", "gs", "az")
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.lance")
_COLLAPSED_URI = re.compile(rf"({'|'.join(_SCHEMES)}):/[^/]")
"""What `Path` makes of a URI."""


@dataclass(frozen=True)
class TableLocation:
    """Folder or prefix of a table, and its name; `str` gives its path or URI.

    Attributes:
        folder: a `Path` of the file system, or a URI of object storage as text.
        name: ends in .lance.
        storage_options: of object storage, as LanceDB takes them; what they leave out comes from
            environment variables.
    """

    folder: Path | str
    name: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(
        cls, place: str | Path, storage_options: Mapping[str, str] | None = None
    ) -> TableLocation:
        """The location that a path or URI names.

        Raises:
            OptionError: for a name that LanceDB doesn't accept, another scheme than s3://, gs://
                and az://, or storage options of a folder, where they have no effect.
        """
        if isinstance(place, Path):
            if _COLLAPSED_URI.match(str(place)):
                raise OptionError(f"{place}: a Path can't hold a URI: give it as text")
            return cls._of_path(place, storage_options)
        if not is_uri(place):
            return cls._of_path(Path(path_from_text(place)), storage_options)
        scheme = place.partition("://")[0]
        if scheme not in _SCHEMES:
            raise OptionError(
                f"{place}: a collection is in a folder, or on object storage at s3://, gs:// or "
                "az://"
            )
        folder, _, name = place.rstrip("/").rpartition("/")
        if folder.endswith(":/"):
            raise OptionError(f"{place} names no bucket: {scheme}://bucket/music.lance")
        _check_name(place, name)
        return cls(folder, name, dict(storage_options or {}))

    @classmethod
    def _of_path(cls, path: Path, storage_options: Mapping[str, str] | None) -> TableLocation:
        _check_name(path, path.name)
        if storage_options:
            raise OptionError(
                f"storage_options has no effect on {path}, which is in a folder: leave it out"
            )
        return cls(path.parent, path.name)

    @property
    def is_remote(self) -> bool:
        """Whether it is on object storage, where there are no folders and no locks."""
        return isinstance(self.folder, str)

    @property
    def path(self) -> Path:
        """The table's folder. Raises CollectionError on object storage."""
        if isinstance(self.folder, str):
            raise CollectionError(f"{self} is on object storage and has no path")
        return self.folder / self.name

    @property
    def stem(self) -> str:
        """Its name without .lance, by which LanceDB knows it."""
        return self.name.removesuffix(".lance")

    @property
    def failures(self) -> TableLocation:
        """The table of failures that belongs to it."""
        return TableLocation(self.folder, f"{self.stem}.failures.lance", self.storage_options)

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}" if isinstance(self.folder, str) else str(self.path)


def _check_name(place: str | Path, name: str) -> None:
    if not _TABLE_NAME.fullmatch(name):
        raise OptionError(
            f"{place}: a collection's name ends in .lance and consists of letters, digits, "
            "'.', '-' and '_', such as music.lance"
        )
