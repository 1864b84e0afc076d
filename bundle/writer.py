"""Writes a bundle atomically: it appears at its path complete, or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hicom_edge.bundle import MANIFEST_NAME, Bundle, sha256_of, text_of
from hicom_edge.bundle.manifest import FileEntry, Manifest
from hicom_edge.bundle.manifest_checks import check_values
from hicom_edge.errors import BundleError, InputError
from hicom_edge.files import Replacement


class BundleWriter:
    """Writes a bundle into a temporary folder and renames it into place at the end.

    Use as a context manager: files go into `writer.path`; `finish(manifest)` hashes them, writes
    the manifest last and renames. Leaving without `finish` removes everything. Files left
    by a killed writer are removed by the next writer of the same bundle.

    Raises:
        InputError: the target cannot be written, or engines could not open files there.
        BundleError: the target exists and may not be replaced.
    """

    def __init__(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.target = Path(target)
        self._overwrite = overwrite
        self._replacement = Replacement(self.target)
        self._open = ExitStack()
        self.path = self.target  # replaced on entry

    def __enter__(self) -> BundleWriter:
        self._refuse_unusable_path()
        try:
            with ExitStack() as opening:
                self.path = opening.enter_context(self._replacement).path
                self._refuse_foreign_target()
                self.path.mkdir()
                self._open = opening.pop_all()
        except OSError as error:
            raise InputError(
                f"{self.target} cannot be written ({error.strerror}); write the bundle elsewhere"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def finish(self, manifest: Manifest) -> Bundle:
        """Hash every file, write the manifest, rename into place and return the opened bundle.

        Raises:
            BundleError: an invalid value in the manifest, or a target that may not be replaced.
        """
        check_values(manifest, f"{self.target}/{MANIFEST_NAME}")
        names = sorted(
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        )
        files = {
            name: FileEntry((self.path / name).stat().st_size, sha256_of(self.path / name))
            for name in names
        }
        manifest = replace(manifest, files=files)
        (self.path / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        self._refuse_foreign_target()  # another process may have created it meanwhile
        self._replacement.publish()
        self.path = self.target
        return Bundle(self.target, manifest)

    def _refuse_unusable_path(self) -> None:
        path = self._replacement.target
        if os.path.ismount(path):
            raise InputError(
                f"{self.target} is a mount point, which cannot be replaced by a bundle; "
                "write to a directory in it"
            )
        if text_of(str(path)) != str(path):
            raise InputError(
                f"{text_of(str(path))} is not a path in UTF-8, which ONNX Runtime cannot "
                "open; write the bundle elsewhere"
            )

    def _refuse_foreign_target(self) -> None:
        if not self.target.exists() or (self.target.is_dir() and not any(self.target.iterdir())):
            return
        if not (self.target / MANIFEST_NAME).is_file():
            raise BundleError(
                f"{self.target} exists and is not a bundle; pass a new directory to write to"
            )
        if not self._overwrite:
            raise BundleError(
                f"{self.target} already holds a bundle; pass another directory or overwrite",
                "overwrite",
            )
