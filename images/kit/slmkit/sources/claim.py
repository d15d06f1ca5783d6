"""``pvc://claim/path``: files of a volume that is mounted, linked and not copied."""

from pathlib import Path

from slmkit.run import RunFailed
from slmops.contract import Reason, Source


def link(source: Source, rest: str, into: Path, volumes: Path) -> str:
    """Link a file or a folder's files; ``volumes`` is where claims are mounted.

    Nothing outside of the volume, whatever path or links say."""
    claim, _, path = rest.partition("/")
    root = (volumes / claim).resolve()
    folder = (root / path).resolve()
    if claim in ("", ".", "..") or not folder.is_relative_to(root):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri} leaves the volume")
    if not folder.exists():
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: not there")
    for file in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
        if not file.resolve().is_relative_to(root):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {file.name} is a link that leaves the volume")
        target = into / (file.name if folder.is_file() else file.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    return source.uri
