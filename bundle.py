"""A bundle on disk: opened with checks, written whole or not at all.

It knows directories, sizes and hashes. It does not know what the graphs compute.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType

from hicom_edge.errors import BundleError, InputError
from hicom_edge.manifest import FileEntry, GraphEntry, Manifest
from hicom_edge.manifest_values import check_values

MANIFEST_NAME = "manifest.json"
ENGINES_DIR = "engines"
_CHUNK = 1 << 22
_PARTIAL, _OLD = "partial", "old"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every path in its manifest lies inside and has the promised size."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: Progress | None = None) -> Bundle:
        """Open a bundle and check all of its files, sizes and hashes.

        Hashing is skipped for a file that was hashed before and whose inode, size and times have
        not changed since; the stamps are kept in the user's cache directory.

        Raises:
            BundleError: not a bundle, half-written, altered, or with a path that leads outside.
        """
        root = Path(path)
        bundle = cls(root, _read_manifest(root))
        for name in bundle.manifest.files:
            bundle._check_size(name)
        bundle._check_hashes(progress)
        return bundle

    def file(self, name: str) -> Path:
        """The absolute path of a file listed in the manifest."""
        if name not in self.manifest.files:
            raise BundleError(
                f"{self.path} has no file {name!r}; it has {sorted(self.manifest.files)}"
            )
        return (self.path / name).resolve()

    def graph(self, name: str) -> GraphEntry:
        """The entry of a graph, by its name in the pipeline."""
        try:
            return self.manifest.graphs[name]
        except KeyError:
            raise BundleError(
                f"{self.path} has no graph {name!r}; it has {sorted(self.manifest.graphs)}"
            ) from None

    def _check_size(self, name: str) -> None:
        path, expected = self.path / name, self.manifest.files[name].size
        if not path.is_file():
            raise BundleError(
                f"{self.path} lacks {name}, which its manifest lists; "
                "export or download the bundle again"
            )
        if path.stat().st_size != expected:
            raise BundleError(
                f"{path} has {path.stat().st_size} bytes, its manifest says {expected}; "
                "export or download the bundle again"
            )

    def _check_hashes(self, progress: Progress | None) -> None:
        stamps = _Stamps.load()
        for name, entry in self.manifest.files.items():
            path = (self.path / name).resolve()
            actual = stamps.sha256_of(path, entry.sha256, progress)
            if actual != entry.sha256:
                raise BundleError(
                    f"{path} was altered: sha256 {actual[:12]}…, its manifest says "
                    f"{entry.sha256[:12]}…; export or download the bundle again"
                )
        stamps.save()


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
        new, self.path = self.path, self.target
        if not self._place.exists():
            new.rename(self._place)
            return
        old = new.with_name(new.name.replace(self._hidden(_PARTIAL), self._hidden(_OLD), 1))
        lock = _locked(self._place)
        self._place.rename(old)
        new.rename(self._place)
        shutil.rmtree(old, ignore_errors=True)
        _unlock(lock)

    def _clear_up(self) -> None:
        """Put right what killed writers have left: a large bundle would fill the disk."""
        for kind in (_OLD, _PARTIAL):
            for left in self._place.parent.glob(f"{glob.escape(self._hidden(kind))}*"):
                lock = _locked(left)
                if lock is None:
                    continue  # another writer is at work
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

    None where another process holds it, or the file system has no locks.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def text_of(name: str) -> str:
    """The name of a file with a question mark for every byte of it that is not UTF-8."""
    return name.encode(errors="replace").decode()


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The sha256 of a file, read in chunks; `progress(name, done_bytes, total_bytes)`."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(path.name, done, total)
    return digest.hexdigest()


def is_unaltered(path: Path, sha256: str) -> bool:
    """Whether a file has that digest; one that had it and was not changed since is not read."""
    stamps = _Stamps.load()
    unaltered = stamps.sha256_of(path.resolve(), sha256) == sha256
    stamps.save()
    return unaltered


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST_NAME
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise BundleError(f"{root} {what}; pass the directory that hicom-edge export wrote")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(
            f"{root} has no {MANIFEST_NAME}: not a bundle, or half-written; "
            "pass a bundle, or run hicom-edge export again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} cannot be read ({error}); export or download the bundle again"
        ) from error
    manifest = Manifest.from_json(text, str(path))
    _check_names(root, manifest)
    check_values(manifest, str(path))
    return manifest


def _check_names(root: Path, manifest: Manifest) -> None:
    """Every name stays inside the bundle, and every name that is used is listed with a hash."""
    used = {manifest.tokenizer, manifest.token_embedding}
    used |= {graph.file for graph in manifest.graphs.values()}
    used |= {file for graph in manifest.graphs.values() for file in graph.variants.values()}
    used |= {manifest.guide.tokenizer} if manifest.guide else set()
    places = {manifest.language_model.directory} if manifest.language_model else set()
    for name in sorted(used | places | set(manifest.files)):
        pure = PurePosixPath(name)
        inside = not pure.is_absolute() and ".." not in pure.parts and "\\" not in name
        if not inside or not _leads_inside(root, name):
            raise BundleError(
                f"{root}: the manifest names {name!r}, which lies outside the bundle; "
                "do not use this bundle"
            )
    unlisted = sorted(used - set(manifest.files))
    if unlisted:
        raise BundleError(f"{root}: the manifest uses {unlisted} but lists no hash for them")


def _leads_inside(root: Path, name: str) -> bool:
    try:
        return (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, a name that no file can have
        return False


class _Stamps:
    """Which files were hashed before: path → (inode, size, mtime, ctime, sha256)."""

    def __init__(self, path: Path, known: dict[str, list[int | str]]) -> None:
        self._path, self._known, self._changed = path, known, False

    @classmethod
    def load(cls) -> _Stamps:
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        except RuntimeError:  # a user without a home directory: nothing is remembered
            base = Path(os.devnull)
        path = base / "hicom-edge" / "hashed.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        return cls(path, known if isinstance(known, dict) else {})

    def sha256_of(self, path: Path, expected: str, progress: Progress | None = None) -> str:
        """The digest; the file is read unless it was the expected one and did not change since."""
        stamp: list[int | str] = [*_stat(path), expected]
        if self._known.get(str(path)) == stamp:
            return expected
        actual = sha256_of(path, progress)
        if actual == expected:
            self._known[str(path)], self._changed = stamp, True
        return actual

    def save(self) -> None:
        """Best effort: a read-only home directory only costs hashing again."""
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(self._known), encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            return


def _stat(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
