"""A filter of system calls for the sandbox, as the bytes that `bwrap --seccomp` takes.

Namespaces do not cover everything: a virtual machine's socket (AF_VSOCK) reaches the host from any network namespace,
and keyrings belong to a user, not to a sandbox. What a program that computes something never needs is refused with
EPERM: keyrings, BPF, performance events, io_uring, userfaultfd, tracing, mounting, namespaces, modules, clocks, and
sockets of other families than UNIX and IP. A process of another architecture's calling convention is killed.

Source: linux/seccomp.h, linux/filter.h, and the system call tables of x86-64 and arm64.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping

ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""AUDIT_ARCH, and the column of CALLS, by machine."""

CALLS: Mapping[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
"""System calls that are refused: their number on x86-64 and on arm64."""

SOCKET = (41, 198)
SOCKETPAIR = (53, 199)
FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
X32 = 0x40000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16


def program(machine: str = "") -> bytes | None:
    """The filter for a machine (default: this one), or None for an architecture whose numbers are not known here."""
    known = ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    audit, column = known
    refused = sorted(numbers[column] for numbers in CALLS.values())
    sockets = (SOCKET[column], SOCKETPAIR[column])
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    code += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)] if column == 0 else []
    for number in refused:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    family = [(LOAD, 0, 0, FIRST_ARGUMENT)]
    for value in FAMILIES:
        family += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    family += [(RETURN, 0, 0, REFUSE)]
    code += [(EQUAL, 1, 0, sockets[0]), (EQUAL, 0, len(family), sockets[1])] + family
    code += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
