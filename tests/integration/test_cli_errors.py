"""Wrong and odd input on the command line: the exit code of semantics, and a sentence that names the thing and what to do."""
import os
import socket
import subprocess
import tempfile
import unittest

import remora

NOBODY = 65534


def run(*arguments, **options):
    result = subprocess.run([remora.REMORA, *arguments], capture_output=True, timeout=120 * remora.SLOW, check=False, **options)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


class Errors(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="remora-test-")
        self.addCleanup(scratch.cleanup)
        self.at = scratch.name

    def path(self, name, text=None, mode=0o600):
        path = os.path.join(self.at, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            os.chmod(path, mode)
        return path

    def fails(self, code, said, *arguments, **options):
        got, out, error = run(*arguments, **options)
        self.assertEqual(got, code, (arguments, error))
        self.assertIn(said, error, arguments)
        self.assertTrue(error.startswith("remora"), error)
        self.assertNotIn("\n", error.rstrip("\n"), arguments)
        self.assertEqual(out, "", arguments)


class Usage(Errors):
    def test_slips(self):
        for said, *arguments in (
                ("a verb is missing; see `remora help`", "--json"), ("did you mean `remora put`", "ptu"), ("did you mean --recursive", "ls", "--recursiv", "v"),
                ("followed by one of create list", "volume", "creat"), ("is too much; usage: remora version", "version", "x"),
                ("usage: remora put VOL LOCAL [REMOTE]", "put", "v"), ("argument 2 is empty", "ls", "v", ""), ("argument 1 is empty", "ls", ""),
                ("--timeout takes a number of seconds, more than 0", "ls", "v", "--timeout", "0"), ("--socket needs a value: PATH", "ls", "v", "--socket"),
                ('--socket takes PATH, not ""', "ls", "v", "--socket", ""), ("--version is 1 or 2", "volume", "create", "v", "--version", "3"),
                ("there is no verb", "help", "nothing"), ('".." is not allowed', "cat", "v", "a/../b"), ("each part of it 255", "ls", "v", "x" * 256),
                ("give -y", "volume", "delete", "v"), ("give -y", "volume", "rename", "v", "w")):
            self.fails(2, said, *arguments, stdin=subprocess.DEVNULL)
        self.assertEqual(run()[0], 2)

    def test_help_is_there_however_it_is_asked_for(self):
        for arguments in (("help", "volume", "create"), ("volume", "create", "--help"), ("help", "put"), ("put", "-h"), ("help", "node"), ("help", "volume")):
            code, out, error = run(*arguments)
            self.assertEqual((code, error), (0, ""), arguments)
            self.assertIn(" ".join(a for a in arguments if a != "help" and a[0] != "-"), out)
        self.assertRegex(run("--version")[1], r"^remora \d+\.\d+\.\d+\n$")

    def test_sockets(self):
        """One that is missing, a stale one, one that is none, one whose name is too long."""
        stale = self.path("stale")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(stale)
        for code, said, path in ((3, "there is no such socket (waited 0.2 s); start one by `remora node`", self.path("none")),
                                 (3, "nobody listens on that socket", stale), (2, "is no socket", self.path("file", "text")),
                                 (2, "too long for the path of a socket", "x" * 300)):
            self.fails(code, said, "ls", "v", "--timeout", "0.2", "--socket", path)
            self.fails(code, path, "ls", "v", "--timeout", "0.2", "--socket", path)

    def test_keys(self):
        key = self.path("key")
        self.assertEqual(run("keygen", key)[0], 0)
        self.fails(2, "exists already", "keygen", key)
        self.fails(1, "No such file", "keygen", self.path("none/key"))
        self.fails(2, "made --from a key", "keygen", self.path("k"), "--role", "cache")
        self.fails(2, "has a --role", "keygen", self.path("k"), "--from", key)
        self.fails(2, 'not "boss"', "keygen", self.path("k"), "--from", key, "--role", "boss")
        self.fails(2, '"a/b" is neither NAME', "keygen", self.path("k"), "--from", key, "--role", "cache", "--volume", "a/b")
        self.fails(2, 'not "tomorrow"', "keygen", self.path("k"), "--from", key, "--role", "cache", "--expires", "tomorrow")
        self.fails(1, "neither a cluster key nor a credential", "keygen", self.path("k"), "--from", self.path("junk", "junk\n"), "--role", "cache")
        self.assertFalse(os.path.exists(self.path("k")))


class NodeErrors(Errors):
    def node(self, *arguments):
        return ("node", "--data", self.path("data"), "--socket", self.path("sock"), *arguments)

    def test_settings(self):
        for code, said, *arguments in (
                (2, "there is no flag --bogus", "--bogus"), (2, "there is no flag --bogus", "--bogus", "3"), (2, "--capacity needs a value", "--capacity"),
                (2, 'capacity: "x" is not a size', "--capacity", "x"), (2, "is not an address", "--listen", "foo"), (2, "is even", "--expect", "2"),
                (2, "conf:2: foo: no such setting", "--config", self.path("conf", "# comment\nfoo = 3\n")),
                (2, 'number:1: capacity: "3x" is not a size', "--config", self.path("number", "capacity = 3x\n")),
                (2, 'shape:1: "capacity 3" is not of the form', "--config", self.path("shape", "capacity 3\n")),
                (2, "cannot read", "--config", self.path("none")), (1, "cannot open", "--key", self.path("none")),
                (1, "neither a cluster key nor a credential", "--key", self.path("garbled", "garbage\n")),
                (7, "chmod o=", "--key", self.path("open", "garbage\n", 0o644)),
                (2, "nodes join with a cluster key", "--join", "tcp://127.0.0.1:1")):
            self.fails(code, said, *self.node(*arguments))

    def test_what_is_in_use(self):
        with remora.Alone() as node:
            self.fails(6, f"{node.data} is in use by another node, process {node.process.pid}", "node", "--data", node.data, "--socket", self.path("s"))
            self.fails(6, "is in use", *self.node("--listen", node.endpoint))
            code, _, error = run("node", "--data", self.path("other"), "--socket", node.socket, "--listen", f"tcp://127.0.0.1:{remora.free_ports(1)[0]}")
            self.assertEqual(code, 6)
            self.assertIn(f"another node answers at {node.socket}", error)
            node.cli("wait")


class Verbs(Errors):
    def setUp(self):
        super().setUp()
        alone = remora.Alone()
        self.node = alone.__enter__()
        self.addCleanup(alone.__exit__)
        self.node.cli("volume", "create", "v")
        self.node.cli("put", "v", self.path("file", "text"), "/d/file")

    def cli_fails(self, code, said, *arguments, **options):
        self.fails(code, said, *arguments, env={**os.environ, "REMORA_SOCKET": self.node.socket}, **options)

    def test_volumes(self):
        for arguments in (("ls", "no"), ("put", "no", self.path("file")), ("get", "no", "x"), ("rm", "no", "x"), ("log", "no"), ("volume", "info", "no"),
                          ("volume", "delete", "no", "-y"), ("volume", "rename", "no", "x", "-y"), ("volume", "undelete", "no"), ("hold", "no"),
                          ("checkout", "no", self.path("out"))):
            self.cli_fails(1, 'there is no volume "no"', *arguments)
        self.cli_fails(2, 'a volume "v" exists already', "volume", "create", "v")
        self.cli_fails(2, "1 to 64 letters", "volume", "create", "a/b")
        self.cli_fails(2, "must be odd", "volume", "create", "w", "--voters", "2")

    def test_paths(self):
        file = self.path("file")
        for code, said, *arguments in (
                (1, "none: No such file or directory", "ls", "v", "none"), (1, "d/none: No such file or directory", "rm", "v", "d/file", "d/none"),
                (1, "d: Is a directory; -r", "rm", "v", "d"), (1, "d: Is a directory; -r", "cp", "v", "d", "e"), (2, "d/file exists; -f", "put", "v", file, "/d/file"),
                (2, "d is a directory in the volume", "put", "v", file, "/d"), (1, "q: No such file or directory; `remora mkdir -p`", "mkdir", "v", "q//w"),
                (1, "nowhere: No such file or directory", "mv", "v", "d/file", "nowhere/x"), (1, "d/file: Not a directory", "cp", "v", "d", "d/file/x", "-r"),
                (2, "/: File exists", "mkdir", "v", "/"), (2, "the root of a volume", "rm", "v", "-r", "/"), (1, "into itself", "mv", "v", "d", "d/e"),
                (2, "is no directory; use `remora get`", "checkout", "v:d/file", self.path("out")), (1, "none: No such file", "put", "v", self.path("none")),
                (2, "name the file in the volume", "put", "v", "-"), (2, "exists; --force", "get", "v", "d/file", file),
                (1, "none: No such file", "get", "v", "d/file", self.path("none/x")), (1, "nothing is mounted there", "commit", "/mnt"),
                (1, "no program on this node works in a view of v", "commit", "v")):
            self.cli_fails(code, said, *arguments, stdin=subprocess.DEVNULL)
        self.assertEqual(self.node.cli("ls", "-r", "v").stdout, b"d\nd/file\n")  # nothing was changed

    @unittest.skipUnless(os.geteuid() == 0, "needs another user")
    def test_other_users(self):
        """Neither the socket nor files are for everybody."""
        os.chmod(self.at, 0o755)
        os.chmod(self.node.directory, 0o755)
        secret = self.path("secret", "x")
        self.cli_fails(7, "join its group", "ls", "v", user=NOBODY, group=NOBODY, extra_groups=[])
        self.cli_fails(1, f"{secret}: Permission denied", "put", "v", secret, user=NOBODY, group=os.getegid(), extra_groups=[])


if __name__ == "__main__":
    unittest.main(verbosity=2)
