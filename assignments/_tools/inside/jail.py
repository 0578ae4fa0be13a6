"""Make a root folder that holds the few folders a submission may see, all read-only, and give up every privilege.

Started by `unshare` as the first process of new user, mount, process, network, message and host-name namespaces. Where
bubblewrap is installed, it has done all this already, and only the serving is left. Only the standard library is imported,
so that nothing else is loaded before the old root is out of sight. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import sys
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH, AT_RECURSIVE, AT_FDCWD, MOUNT_ATTR_RDONLY = 2, 0x8000, -100, 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 24, 38, 4
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442
DEVICES = ("null", "zero", "full", "random", "urandom")
SAME_FLAGS = ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC), (1024, 1024), (2048, 2048), (4096, 1 << 21))

_libc = ctypes.CDLL(None, use_errno=True)


def enter(root: str, binds: list[tuple[str, str]], links: list[tuple[str, str]], scratch_bytes: int) -> None:
    """Make the new root and move into it.

    Args:
        root: an empty folder, over which the new root is mounted.
        binds: (folder or file outside, its path inside), shown read-only.
        links: (path inside, what the symbolic link there says).
        scratch_bytes: size of the one folder that can be written, `/tmp`, which lives in memory.

    Raises:
        OSError: the kernel refuses a step.
    """
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for folder in ("proc", "dev", "tmp"):
        os.mkdir(f"{root}/{folder}")
    mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={scratch_bytes},mode=1777")
    for source, target in binds + [(f"/dev/{name}", f"/dev/{name}") for name in DEVICES]:
        _bind(source, root + target)
    for path, target in links:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    # Some containers cover parts of /proc and so forbid a new one; then there is none. The old one is never shown.
    with contextlib.suppress(PermissionError):
        mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(root)
    _checked(_libc.syscall(ctypes.c_long(PIVOT_ROOT[platform.machine()]), b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")
    mount("tmpfs", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def give_up_privileges() -> None:
    """Drop all capabilities, for good."""
    for number in range(64):
        _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # fails beyond the last one that the kernel knows
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call mount(2).

    Raises:
        OSError: the kernel refuses.
    """
    _checked(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    mount(source, target, "", MS_BIND | MS_REC)
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    arguments = (ctypes.c_long(MOUNT_SETATTR), AT_FDCWD, target.encode(), AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    if _libc.syscall(*arguments) != 0:
        # A kernel before 5.12 knows no recursive way. Without privileges flags can only be added, so the old ones are repeated.
        if _has_mounts_below(target):
            raise OSError(f"{source} holds further mounts, which this kernel cannot make read-only")
        now = os.statvfs(target).f_flag
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | sum(flag for bit, flag in SAME_FLAGS if now & bit))


def _has_mounts_below(folder: str) -> bool:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return any(line.split()[4].startswith(folder.rstrip("/") + "/") for line in lines)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def main() -> None:
    """Read the plan from the command line, move in, and serve."""
    plan = json.loads(sys.argv[1])
    if "root" in plan:
        enter(plan["root"], plan["binds"], plan["links"], plan["scratch_bytes"])
        give_up_privileges()
    if plan.get("only_try"):
        return
    sys.path[:0] = plan["path"]
    import runner  # type: ignore[import-not-found]  # beside this file in the new root, and on its path

    runner.serve(plan)


if __name__ == "__main__":
    main()
