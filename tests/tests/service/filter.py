"""Closes what a unit's settings close by filters on system calls, then becomes the program.

Arguments: the numbers of the calls, as JSON, and the program with its own. As systemd does it: what is not allowed is
refused with EPERM; socket(2) but for some families, mappings that can be both written and executed, and new namespaces
are refused whatever else is allowed.
"""

import ctypes
import json
import mmap
import os
import socket
import struct
import sys

LOAD, AND, EQUAL, ANY, RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1
NUMBER, ARGUMENTS = 0, 16
NAMESPACES = 0x7E020080  # CLONE_NEW* of linux/sched.h, the one for time included


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)


def argument(index):
    """The low half of an argument, in the byte order of the machine."""
    return ARGUMENTS + 8 * index + (0 if sys.byteorder == "little" else 4)


def program(names, allowed, families):
    """BPF as linux/filter.h has it: each special case ends with a verdict of its own."""
    code = [instruction(LOAD, NUMBER)]

    def when(name, body):
        if name in names:
            code.append(instruction(EQUAL, names[name], 0, len(body)))
            code.extend(body)

    refuse, allow = instruction(RETURN, REFUSE), instruction(RETURN, ALLOW)
    body = [instruction(LOAD, argument(0))]
    for family in families:
        body += [instruction(EQUAL, family, 0, 1), allow]
    when("socket", body + [refuse])
    when("mmap", [instruction(LOAD, argument(2)), instruction(AND, 6), instruction(EQUAL, 6, 0, 1), refuse, allow])
    for name in ("mprotect", "pkey_mprotect"):
        when(name, [instruction(LOAD, argument(2)), instruction(ANY, 4, 0, 1), refuse, allow])
    when("clone", [instruction(LOAD, argument(0)), instruction(ANY, NAMESPACES, 0, 1), refuse, allow])
    # Its flags are out of a filter's sight; libraries fall back to clone(2).
    when("clone3", [instruction(RETURN, 0x00050000 | 38)])
    for name in ("unshare", "setns"):
        when(name, [refuse])
    for name in allowed:
        when(name, [allow])
    return b"".join(code + [refuse])


def close(code):
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    filter_pointer = ctypes.create_string_buffer(header, len(header))
    for arguments in ((38, 1, 0, 0, 0), (22, 2, filter_pointer, 0, 0)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl{arguments[:2]}: {os.strerror(ctypes.get_errno())}")


def refused(act):
    try:
        act()
    except PermissionError:
        return True
    return False


with open(sys.argv[1]) as file:
    setting = json.load(file)
close(program(setting["names"], setting["allowed"], [getattr(socket, name) for name in setting["families"]]))
# A filter that lets everything pass would prove nothing.
checks = {
    "a socket of another family": lambda: socket.socket(40, socket.SOCK_STREAM),
    "memory to write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "a change of the host's name": lambda: socket.sethostname("spip-tests"),
}
for what, act in checks.items():
    if not refused(act):
        sys.exit(f"{what} is not refused")
os.execvp(sys.argv[2], sys.argv[2:])
