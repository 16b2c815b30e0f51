"""A small ext4 of our own, on a loop device, whose power can be cut: root only.

`cut` is the ioctl EXT4_IOC_SHUTDOWN (linux/fs/ext4/ext4.h: _IOR('X', 125, __u32)) with 2, EXT4_GOING_FLAGS_NOLOGFLUSH:
from then on nothing reaches the disk, not even the journal's buffers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
IMAGE_BYTES = 96 * 2**20


class LoopDisk:
    """Mounted at `<folder>/mount` between `mount` and `unmount`."""

    def __init__(self, folder: Path) -> None:
        self.image, self.path = folder / "image", folder / "mount"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.path))

    def cut(self) -> None:
        """Cut the power; what is mounted answers EIO from now on."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        if os.path.ismount(self.path):
            _run("umount", str(self.path))


def why_not(folder: Path) -> str:
    """Return why no such disk can be had here, "" when it can."""
    if os.geteuid() != 0:
        return "power cuts need root"
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing:
        return f"power cuts need {missing[0]}"
    try:
        disk = LoopDisk(folder)
        disk.mount()
    except OSError as error:
        return f"no loop device can be mounted: {error}"
    try:
        disk.cut()
    except OSError as error:
        return f"ext4 cannot be shut down here: {error}"
    finally:
        disk.unmount()
        shutil.rmtree(folder)
        folder.mkdir()
    return ""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")
