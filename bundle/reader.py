"""Opens a bundle and checks the paths, sizes and hashes of its files."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hicom_edge.bundle.manifest import GraphEntry, Manifest
from hicom_edge.bundle.manifest_checks import check_values
from hicom_edge.errors import BundleError
from hicom_edge.files import write_cache
from hicom_edge.progress import Progress, no_progress

MANIFEST_NAME = "manifest.json"
ENGINES_DIR = "engines"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file of its manifest is inside and has the listed size and hash."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: Progress = no_progress) -> Bundle:
        """Open a bundle and check all of its files, sizes and hashes.

        Hashing is skipped for a file that was hashed before and whose inode, size and times have
        not changed since; the stamps are kept in the user's cache directory.

        Raises:
            BundleError: not a bundle, incomplete, altered, or with a path outside the bundle.
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

    def _check_hashes(self, progress: Progress) -> None:
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


def text_of(name: str) -> str:
    """A file name with a question mark for every byte that is not UTF-8."""
    return name.encode(errors="replace").decode()


def sha256_of(path: Path, progress: Progress = no_progress) -> str:
    """The sha256 of a file, read in chunks."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"checking {path.name}", done, total, "byte")
    return digest.hexdigest()


def is_unaltered(path: Path, sha256: str) -> bool:
    """Whether a file has this digest; a file unchanged since its last check is not read."""
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
    """Check that every path stays inside the bundle and every file in use has a hash."""
    used = {manifest.tokenizer, manifest.token_embedding}
    used |= {graph.file for graph in manifest.graphs.values()}
    used |= {file for graph in manifest.graphs.values() for file in graph.variants.values()}
    used |= {manifest.guide.tokenizer} if manifest.guide else set()
    directories = {manifest.language_model.directory} if manifest.language_model else set()
    for name in sorted(used | directories | set(manifest.files)):
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
    except (OSError, RuntimeError, ValueError):  # a symlink loop, or an invalid file name
        return False


class _Stamps:
    """Cache of hashed files: path → (inode, size, mtime, ctime, sha256)."""

    def __init__(self, path: Path, known: dict[str, list[int | str]]) -> None:
        self._path, self._known, self._changed = path, known, False

    @classmethod
    def load(cls) -> _Stamps:
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        except RuntimeError:  # no home directory, so no cache
            base = Path(os.devnull)
        path = base / "hicom-edge" / "hashed.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        return cls(path, known if isinstance(known, dict) else {})

    def sha256_of(self, path: Path, expected: str, progress: Progress = no_progress) -> str:
        """The file's digest; reads the file unless it matched before and has not changed."""
        stamp: list[int | str] = [*_stat(path), expected]
        if self._known.get(str(path)) == stamp:
            return expected
        actual = sha256_of(path, progress)
        if actual == expected:
            self._known[str(path)], self._changed = stamp, True
        return actual

    def save(self) -> None:
        """Write the cache; where that fails, files are hashed again next time."""
        if self._changed:
            write_cache(self._path, json.dumps(self._known))


def _stat(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
