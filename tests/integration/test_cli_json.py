"""Every verb with --json prints one object whose keys docs/cli.md tells, and numbers are numbers."""
import json
import os
import re
import subprocess
import tempfile
import unittest

import remora

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "cli.md")
VOLUME = {"name", "id", "version", "created_ms", "creator", "voters", "voters_wanted", "deleted"}
COMMIT = {"token", "commit", "paths", "bytes", "lost"}
COUNT = {"files", "directories", "bytes"}


class Json(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.alone = remora.Alone()
        cls.node = cls.alone.__enter__()
        cls.scratch = tempfile.TemporaryDirectory(prefix="remora-test-")
        cls.at = cls.scratch.name

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()
        cls.alone.__exit__()

    def json(self, *arguments, **options):
        result = self.node.cli(*arguments, "--json", **options)
        self.assertEqual(result.stdout.count(b"\n"), 1, result.stdout)
        self.assertEqual(result.stderr, b"")
        return json.loads(result.stdout)

    def expect(self, keys, *arguments, **options):
        value = self.json(*arguments, **options)
        self.assertEqual(set(value), set(keys), arguments)
        return value

    def test_every_verb_prints_what_the_documentation_says(self):
        local = os.path.join(self.at, "local")
        os.makedirs(os.path.join(local, "sub"))
        with open(os.path.join(local, "a"), "wb") as f:
            f.write(b"x" * 1000)
        os.link(os.path.join(local, "a"), os.path.join(local, "sub", "b"))
        os.symlink("a", os.path.join(local, "link"))
        self.expect(["version"], "version")
        self.expect(["file", "kind"], "keygen", os.path.join(self.at, "key"))
        self.assertIsInstance(self.expect(["store", "name", "version", "cluster", "waiting", "endpoint", "data", "pid", "generation"], "wait")["pid"], int)
        self.expect(VOLUME, "volume", "create", "v")
        self.expect(VOLUME, "volume", "create", "v", "--if-missing")
        self.expect(["volumes"], "volume", "list")
        put = self.expect(COMMIT | COUNT, "put", "v", local, "/d")
        self.assertEqual((put["files"], put["directories"], put["bytes"], put["paths"], put["lost"]), (2, 2, 1000, 6, []))
        info = self.expect(VOLUME | {"size", "files", "inodes", "history_size", "last_commit_ms", "state_hash", "warnings"}, "volume", "info", "v")
        self.assertEqual((info["files"], info["inodes"], info["size"]), (2, 4, 1000))
        got = self.expect({"path", "local"} | COUNT, "get", "v", "d", os.path.join(self.at, "got"))
        self.assertEqual((got["path"], got["files"], got["directories"], got["bytes"]), ("d", 2, 2, 1000))
        out = self.expect({"dir", "generation"} | COUNT, "checkout", "v", os.path.join(self.at, "out"))
        self.assertEqual((out["generation"], out["files"], out["directories"], out["bytes"]), (1, 2, 2, 1000))
        du = self.expect(["directories"], "du", "v")["directories"]
        self.assertEqual(du[-1], {"path": "", "bytes": 1000, "files": 2})
        self.expect(["entries"], "ls", "v", "-r")
        entry = self.json("stat", "v", "d/a")
        self.assertEqual((entry["size"], entry["links"], entry["kind"]), (1000, 2, "file"))
        self.expect(COMMIT | COUNT, "put", "v", "-", "/stdin", input=b"12345")
        for verb in (("mkdir", "v", "m"), ("mv", "v", "m", "n"), ("cp", "v", "stdin", "n"), ("rm", "v", "-r", "n")):
            self.assertIsInstance(self.expect(COMMIT, *verb)["paths"], int)
        self.assertEqual(set(self.json("log", "v")["commits"][0]), {"seq", "token", "commit", "time_ms", "node", "paths", "bytes", "state"})
        self.assertEqual(self.json("log", "v", "--lost"), {"versions": [], "more": False})
        with self.node.api() as api:
            view = api.view("v", label="work")
            api.write(view, "drafted", b"1")
            self.assertEqual(self.expect(["volume", "label", "held"], "hold", "v")["held"], True)
            self.assertEqual(self.expect(["volume", "label", "held"], "hold", "v", "--release"), {"volume": "v", "label": "work", "held": False})
            self.expect(COMMIT, "commit", "v")
            self.expect(["before", "after", "changed", "more"], "reload", "v")
        self.expect(VOLUME, "volume", "rename", "v", "w", "-y")
        self.assertTrue(self.expect(VOLUME, "volume", "delete", "w", "-y")["deleted"])
        self.expect(VOLUME, "volume", "undelete", "w")
        self.assertEqual(self.json("volume", "delete", "none", "-y", "--allow-missing"), {"name": "none", "missing": True})
        self.expect(["members", "more"], "cluster", "members")
        self.assertIn("volumes", self.json("cluster", "status"))

    def test_nothing_to_commit_is_no_commit(self):
        self.node.cli("volume", "create", "empty")
        value = self.json("mkdir", "-p", "empty", "/")
        self.assertEqual((value["commit"], value["paths"]), (None, 0))
        self.assertNotIn(b"0000", self.node.cli("mkdir", "-p", "empty", "/").stderr)
        self.assertEqual(self.json("log", "empty")["commits"], [])

    def test_what_fails_prints_nothing_that_could_be_taken_for_an_answer(self):
        self.node.cli("volume", "create", "f")
        for arguments, code in ((("ls", "f", "none"), 1), (("du", "f", "none"), 1), (("stat", "f", "none"), 1), (("log", "none"), 1),
                                (("get", "f", "none"), 1), (("rm", "f", "none"), 1), (("volume", "create", "f"), 2), (("cat", "f", "x"), 2),
                                (("get", "f", "x", "-"), 2), (("hold", "f"), 1)):
            result = self.node.cli(*arguments, "--json", check=code)
            self.assertEqual(result.stdout, b"", arguments)
            self.assertTrue(result.stderr.startswith(b"remora: "), arguments)

    def test_every_verb_is_in_the_documentation(self):
        overview = subprocess.run([remora.REMORA, "help"], capture_output=True, check=True, text=True).stdout
        verbs = [re.split(r"  |\[|[A-Z]", line[2:])[0].strip() for line in overview.split("\n\n")[2].splitlines()]
        self.assertGreater(len(verbs), 25)
        with open(DOCS, encoding="utf-8") as f:
            table = [line.split("|")[1] for line in f if line.startswith("| `")]
        names = " ".join(table)
        for verb in verbs:
            if verb not in ("node", "help", "cat"):  # which take no --json
                self.assertIn(verb.split()[-1], names, verb)


if __name__ == "__main__":
    unittest.main(verbosity=2)
