"""Which file systems are shared between hosts: SQLite's write-ahead log needs memory that all writers share."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|afs|ceph|lustre|gpfs|beegfs|glusterfs|pvfs2|orangefs|9p|ncpfs|coda|panfs|wekafs|"
    r"fuse\.(sshfs|glusterfs|ceph|s3fs|rclone|gcsfuse|beegfs|juicefs|lustre|davfs2?)|davfs2?"
)


def on_network(path: str | os.PathLike[str], mounts: Path = _MOUNTS) -> bool:
    """Whether a file lies, or would lie, on a file system of other hosts; False where that cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    place = os.path.realpath(path)
    entries = [line.split(" ") for line in lines if line.count(" ") >= 2]
    under = [(_unescape(entry[1]), entry[2]) for entry in entries if _is_under(place, _unescape(entry[1]))]
    # The longest mount point counts, and of equal ones the last, which hides those before.
    kind = max(enumerate(under), key=lambda item: (len(item[1][0]), item[0]))[1][1] if under else ""
    return _NETWORK.fullmatch(kind) is not None


def _is_under(place: str, mount: str) -> bool:
    return place == mount or place.startswith(mount.rstrip("/") + "/")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
