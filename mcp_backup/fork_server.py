"""The fork server: a process that has loaded what workers need, and becomes one whenever asked.

To start an interpreter and load a worker's modules takes a tenth of a second of a processor, each
time; to fork takes two milliseconds, and what was loaded is shared. The parent itself is never
forked: it has threads, a forked one of which would hold locks for ever. This process has none, and
opens nothing but the sockets below.

    parent → server   on the control socket, one packet a worker: JSON [program, slots], with
                      descriptors: the worker's channel, its standard error, the status socket
                      and, where it needs one, the arena
    server → parent   on the status socket: the worker's pid, with a pidfd, or why there is none;
                      when it has ended, what `waitstatus_to_exitcode` says, and then nothing more

It loads its modules while nobody asks. At the end of the control socket it ends, and with it, as
with any parent of theirs, the workers that are left. Linux only.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

MAX_PACKET = 4096
_MAX_DESCRIPTORS = 4
_TITLE = 15  # bytes of a process's short name that Linux keeps


class _Server:
    """Forks workers, and tells of their ends. One thread."""

    def __init__(self, control: socket.socket, parent: int, modules: list[str]) -> None:
        self._control, self._parent = control, parent
        self._unloaded = deque(modules)
        self._workers: dict[int, tuple[int, socket.socket]] = {}  # pid and status, by pidfd
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve until the parent closes its end, or has gone."""
        while True:
            events = self._poll.poll(0 if self._unloaded else None)
            if not events:
                with suppress(ImportError, OSError):  # the worker that needs it will say so
                    import_module(self._unloaded.popleft())
                gc.freeze()  # so that no collection writes to pages that are shared
            for descriptor, _ in events:
                if descriptor in self._workers:
                    self._tell_end(descriptor)
                elif not self._fork():
                    return

    def _fork(self) -> bool:
        """Do what the next packet asks for; tell whether there was one."""
        packet, received, _, _ = socket.recv_fds(self._control, MAX_PACKET, _MAX_DESCRIPTORS)
        if not packet or os.getppid() != self._parent:
            return False
        program, slots = json.loads(packet)
        connection, errors, told, *arena = received
        place, server = f"{arena[0]}:{slots}" if arena else "", os.getpid()
        status = socket.socket(fileno=told)
        try:
            pid = os.fork()
            if not pid:
                self._become([program, str(connection), place, str(server)], errors, status)
            self._tell_begin(pid, status)
        except OSError as error:  # no room for another process, and none was begun
            with status, suppress(OSError):
                status.send((error.strerror or str(error)).encode())
        for descriptor in (connection, errors, *arena):
            os.close(descriptor)
        return True

    def _tell_begin(self, pid: int, status: socket.socket) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # too many open files: nobody could tell how it ends
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._workers[handle] = pid, status
        self._poll.register(handle, select.POLLIN)
        with suppress(OSError):  # the parent has gone, and its end of the control socket says so
            socket.send_fds(status, [str(pid).encode()], [handle])

    def _become(self, argv: list[str], errors: int, status: socket.socket) -> NoReturn:
        """Go on as the worker, which ends here, or with the traceback of what it raises."""
        os.dup2(errors, sys.stderr.fileno())
        for descriptor in (errors, *self._workers):
            os.close(descriptor)
        for end in (self._control, status, *(other for _, other in self._workers.values())):
            end.close()
        _name(argv[0])
        import_module(argv[0]).main(argv)
        os._exit(0)

    def _tell_end(self, handle: int) -> None:
        pid, status = self._workers.pop(handle)
        self._poll.unregister(handle)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with status, suppress(OSError):
            status.send(str(code).encode())


def _name(program: str) -> None:
    """Have lists of processes show what a worker does, since its command is the server's."""
    title = f"backup:{program.rpartition('.')[2]}"[:_TITLE]
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(title)


def main(argv: list[str]) -> None:
    """Serve; `argv` gives the control socket, the parent's pid, and modules to load."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # restic probes lock holders with it
    gc.disable()
    _Server(socket.socket(fileno=int(argv[1])), int(argv[2]), argv[3:]).run()
    os._exit(0)  # nothing that was loaded is worth taking down


if __name__ == "__main__":
    main(sys.argv)
