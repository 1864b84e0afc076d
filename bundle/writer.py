"""Writing a bundle: whole or not at all.

It knows temporary siblings, locks and renames. It does not know what the files hold.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hicom_edge.bundle import MANIFEST_NAME, Bundle, sha256_of, text_of
from hicom_edge.bundle.manifest import FileEntry, Manifest
from hicom_edge.bundle.manifest_checks import check_values
from hicom_edge.errors import BundleError, InputError

_PARTIAL, _OLD = "partial", "old"


class BundleWriter:
    """Writes a bundle in a temporary sibling directory and renames it into place at the end.

    Use as a context manager: files go into `writer.path`; `finish(manifest)` hashes them, writes
    the manifest last and renames. Leaving without `finish` removes everything; what a killed writer
    of the same bundle has left is removed by the next one, and a bundle that it was about to
    replace is put back.

    Raises:
        InputError: nothing can be written at the target, or no engine could open it there.
        BundleError: the target exists and may not be replaced.
    """

    def __init__(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.target = Path(target)
        self._overwrite = overwrite
        self._place = self.target.resolve()  # a link to a bundle stays a link
        self.path = self.target  # replaced on entry

    def __enter__(self) -> BundleWriter:
        self._refuse_unfit_place()
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._clear_up()
            self._refuse_foreign_target()
            prefix = self._hidden(_PARTIAL)
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=self._place.parent))
        except OSError as error:
            raise InputError(
                f"{self.target} cannot be written ({error.strerror}); write the bundle elsewhere"
            ) from error
        self._lock = _locked(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.path != self.target:
            shutil.rmtree(self.path, ignore_errors=True)
        _unlock(self._lock)

    def finish(self, manifest: Manifest) -> Bundle:
        """Hash every file, write the manifest, rename into place and return the opened bundle.

        Raises:
            BundleError: a value with which no bundle opens, or something else has taken the place.
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
        self.path.chmod(0o755)
        self._refuse_foreign_target()  # what was made there meanwhile is not ours
        self._rename_into_place()
        return Bundle(self.target, manifest)

    def _rename_into_place(self) -> None:
        if self._place.exists():
            self._replace()
        else:
            self.path.rename(self._place)
        self.path = self.target

    def _replace(self) -> None:
        name = self.path.name.replace(self._hidden(_PARTIAL), self._hidden(_OLD), 1)
        old, lock = self.path.with_name(name), _locked(self._place)
        try:
            self._place.rename(old)
            self.path.rename(self._place)
        finally:
            if self._place.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:  # interrupted between the two
                old.rename(self._place)
            _unlock(lock)

    def _clear_up(self) -> None:
        """Put right what killed writers have left: a large bundle would fill the disk."""
        for kind in (_OLD, _PARTIAL):
            for left in self._place.parent.glob(f"{glob.escape(self._hidden(kind))}*"):
                lock = _locked(left)
                if lock is None:
                    continue  # another writer is at work, has just ended, or is another user's
                if kind == _OLD and not self._place.exists():
                    left.rename(self._place)
                else:
                    shutil.rmtree(left, ignore_errors=True)
                _unlock(lock)

    def _hidden(self, kind: str) -> str:
        """How the names of siblings begin that a writer makes."""
        return f".{self._place.name}.{kind}-"

    def _refuse_unfit_place(self) -> None:
        if os.path.ismount(self._place):
            raise InputError(
                f"{self.target} is a mount point, which no bundle can take the place of; "
                "write to a directory in it"
            )
        if text_of(str(self._place)) != str(self._place):
            raise InputError(
                f"{text_of(str(self._place))} is not a path in UTF-8, which ONNX Runtime cannot "
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
                f"{self.target} already holds a bundle; pass another directory or --overwrite"
            )


def _locked(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock, which ends with the process however it ends.

    None where another process holds it, the directory cannot be opened, or the file system has no
    locks.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
