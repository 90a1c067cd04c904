"""A disk that can be full: a file system in memory where the machine allows it, a limit on file sizes elsewhere."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

SIZE = 3 << 30


class Disk:
    """The data folder of a broker. `kind` says in words what "full" means here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "eddyline-chaos", str(folder)]
        try:
            self._mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            self._mounted = False
        self.kind = (
            "a file system in memory, filled to the last byte"
            if self._mounted
            else "no file system of our own could be mounted (that takes root); instead the broker may not make a file "
            "longer, which it meets as an error of writing too"
        )

    def fill(self, broker: int) -> None:
        """No more can be written, by the process `broker` at least."""
        if not self._mounted:
            _, hard = resource.prlimit(broker, resource.RLIMIT_FSIZE)
            resource.prlimit(broker, resource.RLIMIT_FSIZE, (1, hard))
            return
        with self._filler.open("wb") as file:
            while (free := os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize) > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END) + free)
                except OSError:  # the broker took some of it meanwhile
                    break

    def free(self, broker: int | None) -> None:
        """There is room again."""
        if not self._mounted:
            if broker is not None:
                _, hard = resource.prlimit(broker, resource.RLIMIT_FSIZE)
                resource.prlimit(broker, resource.RLIMIT_FSIZE, (hard, hard))
            return
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self._mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
