"""``pvc://claim/path``: files of a volume that is mounted, linked and not copied.

They are read once to their end, for a digest over all of them: the path alone does not tell what was there.
"""

import hashlib
from pathlib import Path

from slmkit.meter import Meter, Unmetered
from slmkit.run import RunFailed
from slmkit.sources.digests import of_folder, promised
from slmops.contract import Reason, Source

CHUNK = 1 << 20


def link(
    source: Source, rest: str, into: Path, volumes: Path, meter: Meter | None = None, only: str | None = None
) -> str:
    """Link a file, a folder's files, or of a folder the one that is named ``only``; ``volumes`` is where claims are
    mounted. Returns the address with a digest over what was linked, as of ``s3://``.

    Nothing outside of the volume, whatever path or links say."""
    rest, _, fragment = rest.partition("#")
    wanted = promised(source, fragment)
    claim, _, path = rest.partition("/")
    root = (volumes / claim).resolve()
    folder = (root / path).resolve()
    if claim in ("", ".", "..") or not folder.is_relative_to(root):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri} leaves the volume")
    if only is not None and (only.startswith("/") or ".." in Path(only).parts):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {only} leaves the folder")
    if not folder.exists():
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: not there")
    found = {}
    for name, file in _files(folder, only).items():
        real = file.resolve()
        if not real.is_relative_to(root):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {file.name} is a link that leaves the volume")
        if "\n" in name:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {name!r} is no name that a list of digests can hold")
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(real)
        found[name] = real
    meter = meter or Unmetered()
    meter.expect(sum(file.stat().st_size for file in found.values()))
    digest = of_folder(source, {name: _digest(file, meter) for name, file in found.items()}, wanted if found else "")
    return f"pvc://{rest}#sha256={digest}"


def _files(folder: Path, only: str | None) -> dict[str, Path]:
    """The files that are meant, by their names below the folder. One that is named and not there is none: whoever reads
    the data says so."""
    if folder.is_file():
        return {folder.name: folder}
    chosen = sorted(folder.rglob("*")) if only is None else [folder / only]
    return {str(file.relative_to(folder)): file for file in chosen if file.is_file()}


def _digest(file: Path, meter: Meter) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            sha.update(chunk)
            meter.advance(len(chunk))
    return sha.hexdigest()
