"""What get writes to, what it never replaces, and what is left of one that was interrupted or killed."""
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
import unittest

import remora

MIB = 1 << 20
SIZE = 96 * MIB  # takes long enough to be caught in the middle


def identity(path):
    info = os.lstat(path)
    return info.st_dev, info.st_ino, info.st_mode, info.st_mtime_ns


class Get(unittest.TestCase):
    def setUp(self):
        alone = remora.Alone()
        self.node = alone.__enter__()
        self.addCleanup(alone.__exit__)
        scratch = tempfile.TemporaryDirectory(prefix="remora-test-")
        self.addCleanup(scratch.cleanup)
        self.at = scratch.name
        self.node.cli("volume", "create", "v")
        self.put("small", b"bytes")

    def path(self, name):
        return os.path.join(self.at, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def put(self, name, data):
        self.node.cli("put", "v", "-", name, input=data)

    def refused(self, *arguments, saying):
        result = self.node.cli("get", "v", *arguments, check=2)
        self.assertIn(saying, result.stderr.decode())
        self.assertEqual(result.stdout, b"")


class Targets(Get):
    def test_special_files_are_refused_by_name_with_force_and_without(self):
        os.mkfifo(self.path("fifo"))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("socket"))
        os.symlink("/dev/null", self.path("to-null"))
        for name, what in (("fifo", "a fifo"), ("socket", "a socket"), ("to-null", "a device")):
            for force in ([], ["--force"]):
                before = identity(self.path(name))
                if force or name != "to-null":
                    self.refused("small", self.path(name), *force, saying=f"{self.path(name)} is {what}")
                self.assertEqual(identity(self.path(name)), before)
        for device in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            before = identity("/dev/stdout"), identity("/dev/null")
            result = self.node.cli("get", "-f", "v", "small", device, check=2)
            self.assertIn("`-` writes to standard output", result.stderr.decode())
            self.assertEqual((identity("/dev/stdout"), identity("/dev/null")), before)
        self.assertEqual(self.node.cli("get", "v", "small", "-").stdout, b"bytes")

    def test_force_writes_through_a_link_as_cp_does(self):
        os.mkdir(self.path("elsewhere"))
        for name in ("elsewhere/file", "plain"):
            with open(self.path(name), "w") as f:
                f.write("old")
        os.symlink("elsewhere/file", self.path("link"))
        self.refused("small", self.path("link"), saying="exists")
        self.node.cli("get", "-f", "v", "small", self.path("link"))
        self.assertTrue(os.path.islink(self.path("link")))
        self.assertEqual(self.read("elsewhere/file"), b"bytes")
        self.node.cli("get", "-f", "v", "small", self.path("plain"))
        self.assertEqual(self.read("plain"), b"bytes")
        os.symlink("nothing", self.path("dangling"))
        self.refused("small", self.path("dangling"), "-f", saying="leads nowhere")
        self.assertEqual(sorted(os.listdir(self.at)), ["dangling", "elsewhere", "link", "plain"])

    def test_a_merge_replaces_its_like_and_refuses_the_rest_before_anything_is_written(self):
        tree = self.path("tree")
        os.makedirs(os.path.join(tree, "sub"))
        os.mkfifo(os.path.join(tree, "sub", "fifo"))
        with open(os.path.join(tree, "a"), "w") as f:
            f.write("new")
        os.link(os.path.join(tree, "a"), os.path.join(tree, "sub", "a-too"))
        self.node.cli("put", "v", tree, "/tree")
        self.node.cli("get", "v", "tree", self.path("out"))
        for _ in range(2):
            self.node.cli("get", "-f", "v", "tree", self.at)
        self.assertEqual(os.stat(os.path.join(tree, "a")).st_ino, os.stat(os.path.join(tree, "sub", "a-too")).st_ino)
        # In the other's way: a fifo where a file is to be.
        with open(os.path.join(tree, "a"), "w") as f:
            f.write("mine")
        os.remove(os.path.join(tree, "sub", "a-too"))
        os.mkfifo(os.path.join(tree, "sub", "a-too"))
        self.refused("tree", self.at, "-f", saying="tree/sub/a-too is a fifo")
        self.assertEqual(self.read("tree/a"), b"mine")
        self.assertTrue(stat.S_ISFIFO(os.lstat(self.path("tree/sub/a-too")).st_mode))

    def test_the_root_of_a_volume_is_not_of_1970(self):
        self.node.cli("get", "v", "/", self.path("all"))
        self.node.cli("checkout", "v", self.path("current"))
        for name in ("all", "current"):
            self.assertLess(abs(time.time() - os.stat(self.path(name)).st_mtime), 600 * remora.SLOW)

    def test_a_checkout_of_nothing_leaves_nothing(self):
        self.node.cli("checkout", "v:missing", self.path("out"), check=1)
        self.node.cli("checkout", "v:small", self.path("out"), check=2)
        self.assertEqual(os.listdir(self.at), [])


class Interrupted(Get):
    def setUp(self):
        super().setUp()
        self.put("large", os.urandom(MIB) * (SIZE // MIB))

    def caught_in_the_middle(self, number, *arguments):
        """Runs get until its temporary is there, then sends the signal; tries again if it was done by then. The exit code."""
        for _ in range(50):
            process = subprocess.Popen([remora.REMORA, "get", *arguments], env={**os.environ, "REMORA_SOCKET": self.node.socket},
                                       cwd=self.at, stderr=subprocess.DEVNULL)
            while process.poll() is None:
                if any(name.startswith(".remora-") for name in os.listdir(self.at)):
                    process.send_signal(number)
                    break
            code = process.wait(60 * remora.SLOW)
            if code != 0:
                return code
            subprocess.run(["rm", "-rf", self.path("out")], check=True)
        self.fail("get is too quick to be caught")

    def test_a_killed_get_is_replaced_by_the_next_one(self):
        self.node.cli("mkdir", "v", "dir")
        self.node.cli("mv", "v", "large", "dir")
        for remote, got in (("dir/large", "out"), ("dir", "out/large")):
            self.assertEqual(self.caught_in_the_middle(signal.SIGKILL, "v", remote, "out"), -signal.SIGKILL)
            left = os.listdir(self.at)
            self.assertEqual(len(left), 1)
            self.assertRegex(left[0], r"^\.remora-[0-9a-f]{16}$")
            self.node.cli("get", "v", remote, self.path("out"))
            self.assertEqual(os.listdir(self.at), ["out"])
            self.assertEqual(os.stat(self.path(got)).st_size, SIZE)
            subprocess.run(["rm", "-r", self.path("out")], check=True)

    def test_an_interrupted_get_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.assertEqual(self.caught_in_the_middle(number, "v", "large", "out"), 130)
            self.assertEqual(os.listdir(self.at), [])

    def test_two_at_once_are_one_and_a_refusal(self):
        arguments = [remora.REMORA, "get", "v", "large", self.path("out"), "--json"]
        environment = {**os.environ, "REMORA_SOCKET": self.node.socket}
        pair = [subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        results = [(process.communicate(timeout=60 * remora.SLOW), process.returncode) for process in pair]
        codes = sorted(code for _, code in results)
        self.assertEqual(codes[0], 0)
        self.assertIn(codes[1], (2, 6), results)  # it exists by then, or is being got
        self.assertEqual(os.listdir(self.at), ["out"])
        for (out, _), code in results:
            if code == 0:
                self.assertEqual(json.loads(out)["bytes"], SIZE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
