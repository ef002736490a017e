"""What the integration tests share: real nodes as processes, the command line, and a client of the local API that is written from
docs/api.md alone (so it also proves that any language's client works)."""
import array
import atexit
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import msgpack

REMORA = os.environ.get("REMORA", "remora")
LONG = os.environ.get("REMORA_TEST_LONG") == "1"  # the sizes that the project promises; else smaller ones of the same shape
SLOW = int(os.environ.get("REMORA_TEST_SLOW", "1"))  # how much slower than a plain build the program is (sanitizers)
READY_S = 30 * SLOW
REPORT = re.compile("(ERROR|WARNING|FATAL): [A-Za-z]+Sanitizer|runtime error: ")  # of a sanitizer
CRASHES = [-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE]


def scale(short, long):
    return long if LONG else short


def report_in(text):
    """What a sanitizer said first, or None."""
    found = REPORT.search(text)
    return None if found is None else text[text.rfind("\n", 0, found.start()) + 1 :][:10000]


def run(*arguments, socket_path=None, timeout=600 * SLOW, **options):
    """The program, to its end; its output is captured."""
    if socket_path is not None:
        options["env"] = {**os.environ, **options.get("env", {}), "REMORA_SOCKET": socket_path}
    result = subprocess.run([REMORA, *arguments], capture_output=True, timeout=timeout, **options)
    if report := report_in(result.stderr.decode(errors="replace")):
        raise AssertionError(f"remora {' '.join(arguments)}:\n{report}")
    return result


class ApiError(Exception):
    def __init__(self, symbol, message):
        super().__init__(f"{symbol}: {message}")
        self.symbol = symbol
        self.message = message


class Api:
    """One connection; one call at a time."""

    def __init__(self, path, timeout=120 * SLOW):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
        self.msgid = 0
        self.fds = []

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _receive(self):
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_LEN(64 * 4))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self.fds += list(fds)
        if not data:
            raise ConnectionError("the node closed the connection")
        self.unpacker.feed(data)

    def send(self, method, fds=(), **params):
        self.msgid += 1
        message = msgpack.packb([0, self.msgid, method, [params]], use_bin_type=True, unicode_errors="surrogateescape")
        sent = socket.send_fds(self.socket, [message], list(fds)) if fds else 0
        self.socket.sendall(message[sent:])
        return self.msgid

    def wait(self, msgid):
        while True:
            for message in self.unpacker:
                if message[0] == 1 and message[1] == msgid:
                    if message[2] is not None:
                        raise ApiError(*message[2])
                    return message[3]
            self._receive()

    def call(self, method, fds=(), **params):
        return self.wait(self.send(method, fds, **params))

    # What tests do all the time
    def view(self, volume, **options):
        return self.call("view.open", volume=volume, **options)["view"]

    def write(self, view, path, data, **options):
        self.call("fs.put", view=view, entries=[{"path": path, "kind": "file", "data": data}], parents=True, **options)

    def read(self, view, path):
        out, offset = b"", 0
        while True:
            data = self.call("fs.read", view=view, path=path, offset=offset, length=1 << 20)["data"]
            out += data
            offset += len(data)
            if len(data) < 1 << 20:
                return out

    def commit(self, view, **options):
        return self.call("view.commit", view=view, **options)

    def reload(self, view, **options):
        return self.call("view.reload", view=view, **options)


def free_ports(n):
    """n ports whose successor is free too (control and data)."""
    ports, held = [], []
    while len(ports) < n:
        port = random.randrange(20000, 32000, 2)
        pair = []
        try:
            for p in (port, port + 1):
                s = socket.socket()
                pair.append(s)
                s.bind(("127.0.0.1", p))
        except OSError:
            for s in pair:
                s.close()
            continue
        held += pair
        ports.append(port)
    for s in held:
        s.close()
    return ports


directories = {}  # of this process that still are there → their nodes


def clear(directory):
    """Ends the nodes of a directory and removes it with all that is in it; a node with a problem fails the test."""
    nodes = directories.pop(directory, [])
    running = [node for node in nodes if node.process is not None and node.process.poll() is None]
    for number in (signal.SIGCONT, signal.SIGTERM):
        for node in running:
            node.signal(number)
    for node in running:
        node.end()
    problems = {node.name: problem for node in nodes if (problem := node.problem()) is not None}
    shutil.rmtree(directory, ignore_errors=True)
    for name, problem in problems.items():
        print(f"--- {name}\n{problem}", file=sys.stderr)
    assert not problems, f"{', '.join(problems)}: crashed, or reported by a sanitizer (above)"


@contextlib.contextmanager
def scratch():
    """A directory for a test and its nodes; both are gone afterwards."""
    directory = tempfile.mkdtemp(prefix="remora-")
    directories[directory] = []
    try:
        yield directory
    finally:
        clear(directory)


def clear_all():
    for directory in list(directories):
        with contextlib.suppress(AssertionError):
            clear(directory)


atexit.register(clear_all)  # a test that was interrupted
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Threads:
    """Functions that run beside a test, each in a thread of its own, until the block ends; `stop` tells them. They are joined whatever
    happens, and an exception of theirs fails the test."""

    def __init__(self, *functions):
        self.stop = threading.Event()
        self.problems = []
        self.threads = [threading.Thread(target=self._run, args=(function,)) for function in functions]

    def _run(self, function):
        try:
            function(self.stop)
        except Exception as problem:  # of any kind: it is raised in the test's own thread
            self.problems.append(problem)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.problems and kind is None:
            raise self.problems[0]


class Node:
    def __init__(self, directory, name, port, arguments, environment=None):
        self.directory = directory
        self.name = name
        self.port = port
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.arguments = arguments
        self.environment = environment or {}
        self.socket = os.path.join(directory, name + ".sock")
        self.data = os.path.join(directory, name)
        self.log = os.path.join(directory, name + ".log")
        self.process = None
        directories.setdefault(directory, []).append(self)

    def command(self):
        return [REMORA, "node", "--data", self.data, "--socket", self.socket, "--listen", self.endpoint, "--name", self.name,
                "--free-space", "0", *self.arguments]

    def start(self, wait=True, prefix=()):
        if self.process is not None and self.process.poll() in CRASHES:
            raise AssertionError(f"{self.name} {self.problem()}")
        with open(self.log, "ab") as log:  # a session of its own: what runs it (strace) ends with it
            self.process = subprocess.Popen([*prefix, *self.command()], stdout=log, stderr=log, start_new_session=True,
                                            env={**os.environ, **self.environment})
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        """The socket answers."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                with Api(self.socket, timeout=5 * SLOW) as api:
                    return api.call("node.info")
            except (OSError, ApiError):
                if self.process.poll() is not None:
                    raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}") from None
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} is not ready:\n{self.tail()}") from None
                time.sleep(0.02)

    def wait_cluster(self):
        """The cluster has begun, as this node knows."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with Api(self.socket) as api:
                info = api.call("node.info")
            if info["cluster"] is not None and not info["waiting"]:
                return info
            time.sleep(0.05)
        raise AssertionError(f"{self.name} still waits: {info['waiting']}\n{self.tail()}")

    def tail(self, n=4000):
        with open(self.log, errors="replace") as log:
            return log.read()[-n:]

    def problem(self):
        """What must not happen to a node, whatever its test does: a sanitizer's report, a crash."""
        if self.process is None:
            return None
        if self.process.returncode in CRASHES:
            return f"crashed ({signal.Signals(-self.process.returncode).name}):\n{self.tail()}"
        return report_in(self.tail(1 << 30))

    def signal(self, number):
        """To all of its session; False if none is left."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def end(self, timeout=30 * SLOW):
        """By asking, then by force."""
        if self.process is None or self.process.returncode is not None:
            return
        deadline = time.monotonic() + timeout
        try:
            self.process.wait(timeout)
            while self.signal(0) and time.monotonic() < deadline:  # what runs it went first
                time.sleep(0.02)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, timeout=40 * SLOW):
        self.process.terminate()
        return self.process.wait(timeout)

    def api(self, **options):
        return Api(self.socket, **options)

    def cli(self, *arguments, check=0, **options):
        """Runs the command line against this node; check: the exit code it must have, None: any."""
        result = run(*arguments, socket_path=self.socket, **options)
        if check is not None and result.returncode != check:
            raise AssertionError(f"remora {' '.join(arguments)}: exit {result.returncode}, not {check}\n"
                                 f"{result.stdout.decode(errors='replace')[-2000:]}{result.stderr.decode(errors='replace')[-2000:]}"
                                 f"\n--- {self.name}\n{self.tail()}")
        return result


class Cluster:
    """n founding nodes with a fresh key on loopback; more can be added."""

    def __init__(self, n=3, environments=None, arguments=()):
        self.directory = tempfile.mkdtemp(prefix="remora-")
        directories[self.directory] = []
        self.key = os.path.join(self.directory, "key")
        run("keygen", self.key, check=True)
        self.nodes = []
        ports = free_ports(n)
        join = ",".join(f"tcp://127.0.0.1:{p}" for p in ports)
        self.join = join
        founding = ["--key", self.key, "--expect", str(n), "--join", join, "--vote"]
        for i, port in enumerate(ports):
            environment = (environments or {}).get(i + 1)
            self.nodes.append(Node(self.directory, f"n{i + 1}", port, [*founding, *arguments], environment))

    def start(self):
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        for node in self.nodes:
            node.wait_cluster()
        return self

    def add(self, name, *arguments, key=None):
        node = Node(self.directory, name, free_ports(1)[0], ["--key", key or self.key, "--join", self.join, *arguments])
        self.nodes.append(node)
        return node

    def __getitem__(self, i):
        return self.nodes[i - 1]

    def close(self):
        clear(self.directory)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()


class Alone:
    """One node without configuration, a cluster of its own."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            node = Node(stack.enter_context(scratch()), "n1", free_ports(1)[0], []).start()
            node.wait_cluster()
            self.stack = stack.pop_all()
        return node

    def __exit__(self, *_):
        self.stack.close()
