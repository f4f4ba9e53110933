"""A client of ``fisao serve --stdio``: one JSON object a line, both ways."""

from __future__ import annotations

import atexit
import collections
import contextlib
import io
import json
import os
import queue
import subprocess
import threading
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, cast

from ._errors import (
    FisaoError,
    RequestTimeout,
    ServerDied,
    StartFailed,
    UnsupportedProtocol,
    from_reply,
    reason_in,
)

#: Version of the protocol that this package speaks.
PROTOCOL = 1
#: Requests of one call that are written before the first of them is answered.
IN_FLIGHT = 4
#: Lines of the server's standard error that are kept.
LOG_LINES = 60
#: Seconds in which a server that was asked to stop has to end.
GRACE = 5.0

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class _Connection:
    """A server and what is under way, known to its threads; nothing here refers to the client."""

    def __init__(self, command: Sequence[str]) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.ready: Future[Dict[str, Any]] = Future()
        self.failure: Optional[FisaoError] = None
        self.closed = False
        self.log: Deque[str] = collections.deque(maxlen=LOG_LINES)
        self._last_id = 0
        # By id, what was sent and not answered; None if nobody waits for it any more.
        self._sent: Dict[int, Optional[Future[Any]]] = {}
        self._lines: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        # Without buffers, so that a forked process has nothing to flush. In a process group of its
        # own, so that Ctrl-C in a terminal or a notebook interrupts Python and not the server.
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.threads = [
            threading.Thread(target=target, daemon=True, name=f"fisao-{name}")
            for name, target in (
                ("stderr", self._keep_log),
                ("stdin", self._write_lines),
                ("stdout", self._read_replies),
            )
        ]
        for thread in self.threads:
            thread.start()

    def text_of_log(self) -> str:
        """What is kept of the server's standard error."""
        return "\n".join(list(self.log))

    def submit(self, method: str, params: Dict[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self.lock:
            if self.failure is not None:
                raise _again(self.failure)
            if self.closed:
                raise ServerDied("the server is closed", hint="make a new Verifier")
            self._last_id += 1
            request = self._last_id
            line = {"protocol": PROTOCOL, "id": request, "method": method, "params": params}
            text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
            self._sent[request] = future
            # Lone surrogates have no UTF-8; each becomes one question mark.
            self._lines.put(text.encode("utf-8", "replace") + b"\n")
        return future

    def forget(self, future: Future[Any]) -> None:
        """Nobody waits for a request's answer any more."""
        with self.lock:
            for request, other in self._sent.items():
                if other is future:
                    self._sent[request] = None

    def let_go(self) -> None:
        """Closes the server's input once everything is written, which ends the server."""
        self._lines.put(None)

    def _keep_log(self) -> None:
        assert self.process.stderr is not None
        try:
            for line in io.BufferedReader(cast(io.RawIOBase, self.process.stderr)):
                self.log.append(line.decode("utf-8", "replace").rstrip())
        except (OSError, ValueError):
            pass

    def _write_lines(self) -> None:
        assert self.process.stdin is not None
        try:
            while True:
                line = self._lines.get()
                if line is None:
                    break
                rest = memoryview(line)
                while rest:
                    rest = rest[self.process.stdin.write(rest) or 0 :]
        except (OSError, ValueError):
            pass  # The end of its output tells why.
        finally:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def _read_replies(self) -> None:
        assert self.process.stdout is not None
        reason: Optional[str] = None
        try:
            for line in io.BufferedReader(cast(io.RawIOBase, self.process.stdout), 1 << 16):
                reply = json.loads(line)
                if not isinstance(reply, dict):
                    raise ValueError("it is not an object")
                self._accept(reply)
        except ValueError as error:
            reason = f"the server wrote a line that is no reply: {error}"
        except OSError as error:
            reason = f"the server's output cannot be read: {error}"
        self._end(reason)

    def _accept(self, reply: Dict[str, Any]) -> None:
        if not self.ready.done():
            if "protocol" not in reply:
                raise ValueError("the greeting has no protocol")
            self.ready.set_result(reply)
            return
        with self.lock:
            request = reply.get("id")
            if request is None:
                # Of a line that could not be read: the oldest, since they are answered in order.
                request = min(self._sent, default=0)
            future = self._sent.pop(request, None)
        if future is None:
            return
        error = reply.get("error")
        if error is not None:
            future.set_exception(from_reply(error, self.text_of_log()))
        elif "result" in reply:
            future.set_result(reply["result"])
        else:
            future.set_exception(FisaoError("a reply has neither result nor error"))

    def _end(self, reason: Optional[str]) -> None:
        """The server's output has ended, and with it all requests."""
        if reason is not None:
            self.process.kill()
        code = self.process.wait()
        self.threads[0].join(1.0)
        log = self.text_of_log()
        said, hint = reason_in(log)
        if reason is None:
            reason = said or f"the server {_ending(code)}"
        if said is None and log:
            hint = "it wrote:\n" + "\n".join(log.splitlines()[-10:])
        started = self.ready.done()
        failure: FisaoError = (ServerDied if started else StartFailed)(reason, hint=hint, log=log)
        with self.lock:
            self.failure = failure
            sent, self._sent = self._sent, {}
        self.let_go()
        if not started:
            self.ready.set_exception(failure)
        for future in sent.values():
            if future is not None:
                future.set_exception(_again(failure))

    def close(self, grace: float) -> None:
        with self.lock:
            if self.closed or os.getpid() != self.pid:
                return
            self.closed = True
        self.let_go()
        for stop, seconds in (
            (None, grace),
            (self.process.terminate, 2.0),
            (self.process.kill, 5.0),
        ):
            if stop is not None:
                stop()
            try:
                self.process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        for thread in self.threads:
            thread.join(1.0)
        if not any(thread.is_alive() for thread in self.threads):
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


class Client:
    """A running server. Requests may come from several threads; a forked process needs its own.

    * ``command``: the program and its arguments.
    * ``start_timeout``: seconds for loading everything; ``None`` waits for as long as it runs.
    * ``timeout``: seconds for each request; ``None`` waits for as long as the server runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        start_timeout: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> None:
        self.command = list(command)
        self.timeout = timeout
        self._connection = _Connection(self.command)
        # A client that is forgotten leaves no server behind.
        self._let_go = weakref.finalize(self, self._connection.let_go)
        _clients.add(self)
        try:
            #: What the server said first.
            self.greeting = self._greeting(start_timeout)
        except BaseException:
            self.close(grace=0.0)
            raise

    def _greeting(self, start_timeout: Optional[float]) -> Dict[str, Any]:
        try:
            greeting = self._connection.ready.result(start_timeout)
        except FutureTimeout:
            message = f"the server was not ready after {start_timeout:g} seconds"
            hint = "give a larger start_timeout; loading a large model takes minutes"
            raise RequestTimeout(message, hint=hint, log=self.log) from None
        protocol = greeting.get("protocol")
        if protocol != PROTOCOL:
            raise UnsupportedProtocol(
                f"{self.command[0]} speaks protocol {protocol}; this package speaks {PROTOCOL}",
                hint="install package and binary of the same version",
                log=self.log,
            )
        return greeting

    @property
    def log(self) -> str:
        """The end of what the server wrote to its standard error."""
        return self._connection.text_of_log()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._connection.process.pid

    @property
    def belongs_here(self) -> bool:
        """Whether this process started the server, and did not inherit it by a fork."""
        return os.getpid() == self._connection.pid

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._connection.closed

    def submit(self, method: str, params: Dict[str, Any]) -> Future[Any]:
        """Sends a request. The future holds its result, or raises a ``FisaoError``."""
        if not self.belongs_here:
            raise FisaoError(
                f"this client belongs to process {self._connection.pid}, and this is {os.getpid()}",
                hint="make a client after the fork, in the process that uses it",
            )
        return self._connection.submit(method, params)

    def request(self, method: str, params: Dict[str, Any], timeout: Optional[float] = None) -> Any:
        """The result of a request. ``timeout`` is that of the client unless it is given."""
        return next(self.requests(method, [params], timeout))

    def requests(
        self,
        method: str,
        several: Iterable[Dict[str, Any]],
        timeout: Optional[float] = None,
    ) -> Iterator[Any]:
        """Results of several requests, in their order, of which a few are always under way.

        ``timeout`` is for each of them, from the moment that the one before it was answered.
        """
        seconds = self.timeout if timeout is None else timeout
        waiting: Deque[Future[Any]] = collections.deque()
        remaining = iter(several)
        try:
            while True:
                while len(waiting) < IN_FLIGHT:
                    params = next(remaining, None)
                    if params is None:
                        break
                    waiting.append(self.submit(method, params))
                if not waiting:
                    return
                yield self._result(waiting[0], method, seconds)
                waiting.popleft()
        finally:
            for future in waiting:
                self._connection.forget(future)

    def _result(self, future: Future[Any], method: str, seconds: Optional[float]) -> Any:
        try:
            return future.result(seconds)
        except FutureTimeout:
            if future.done():  # It ended between the two.
                return future.result()
            message = f"no answer to {method} after {seconds:g} seconds"
            hint = "give a larger timeout, or fewer images at once"
            raise RequestTimeout(message, hint=hint, log=self.log) from None

    def close(self, grace: float = GRACE) -> None:
        """Ends the server. Requests that are not answered yet raise ``ServerDied``.

        * ``grace``: seconds in which it may answer what it has begun.
        """
        self._connection.close(grace)
        _clients.discard(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _again(failure: FisaoError) -> FisaoError:
    """The same failure without the traceback of its first occurrence."""
    return type(failure)(failure.message, hint=failure.hint, log=failure.log)


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _close_all() -> None:
    clients: List[Client] = list(_clients)
    for client in clients:
        client.close(grace=1.0)


def _close_inherited() -> None:
    """In a forked process: lets go of the servers' input, whose end ends them."""
    for client in list(_clients):
        stdin = client._connection.process.stdin
        if stdin is not None:
            stdin.close()
    _clients.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
