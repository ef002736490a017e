"""A full disk is refused by name (exit 5), the node keeps serving what it has, and goes on by itself when there is room again. Real file
systems of a fixed size: needs root to mount them."""
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest

import remora

MIB = 1 << 20
SOON_S = 5 * remora.SLOW  # a refusal does not wait for anything


def may_mount():
    if os.geteuid() != 0:
        return "needs root, to mount small file systems"
    directory = tempfile.mkdtemp(prefix="remora-disk-")
    try:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", directory], capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", directory], check=True)
    finally:
        os.rmdir(directory)
    return None if tried.returncode == 0 else "may not mount a file system: " + tried.stderr.decode().strip()


REFUSED = may_mount()


class Disk:
    """A file system of that many MiB, and a file in it that somebody else fills it with."""

    def __init__(self, parent, name, mib):
        self.path = os.path.join(parent, name)
        self.filler = None
        os.makedirs(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", self.path], check=True)

    def resize(self, mib):
        subprocess.run(["mount", "-o", f"remount,size={mib}m", self.path], check=True)

    def free(self):
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def used(self):
        status = os.statvfs(self.path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def fill(self):
        """To the last block."""
        if self.filler is None:
            self.filler = open(os.path.join(self.path, "filler"), "wb", 0)
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    self.filler.write(b"y" * size)
            except OSError:
                pass

    def empty(self):
        self.filler.close()
        os.unlink(self.filler.name)
        self.filler = None

    def close(self):
        if self.filler is not None:
            self.filler.close()
        subprocess.run(["umount", "-l", self.path], check=True)


class Capacity(unittest.TestCase):
    """--capacity bounds what voters take in; nothing of it needs a disk of its own."""

    def setUp(self):
        self.directory = self.enterContext(remora.scratch())

    def file(self, name, size):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as f:
            f.write(random.Random(name).randbytes(size))
        return path

    def refused(self, node, *arguments, **options):
        self.assertRegex(node.cli(*arguments, check=5, **options).stderr, b"no space|no majority .* has room")

    def test_of_one_voter(self):
        node = remora.Node(self.directory, "n", remora.free_ports(1)[0], ["--capacity", "8M"]).start()
        node.cli("volume", "create", "v")
        node.cli("put", "v", self.file("first", 5 * MIB), "/first")
        for _ in range(2):
            self.refused(node, "put", "v", self.file("second", 5 * MIB), "/second")
            with open(self.directory + "/second", "rb") as f:
                self.refused(node, "put", "v", "-", "/second", stdin=f)
            node.cli("cp", "v", "/first", "/again")  # takes nothing
            node.cli("put", "v", self.file("small", 1000), "/small", "-f")
        with node.api() as api:  # drafts are beside it, until they are committed
            view = api.view("v", label="work")
            for i in range(5):
                api.call("fs.write", view=view, path="draft", offset=i * MIB, data=random.randbytes(MIB), create=True)
            with self.assertRaises(remora.ApiError) as refusal:
                api.commit(view)
            self.assertEqual(refusal.exception.symbol, "NOSPACE")
            self.assertEqual(len(api.read(view, "draft")), 5 * MIB)
            self.assertLessEqual(api.call("cluster.status")["contents"]["bytes"], 8 * MIB)
        self.assertEqual(sorted(node.cli("ls", "v").stdout.split()), [b"again", b"first", b"small"])
        self.assertEqual(node.stop(), 0)
        node.arguments = ["--capacity", "24M"]
        node.start()
        node.cli("commit", "v", "--label", "work")
        node.cli("put", "v", self.directory + "/second", "/second")

    def test_of_a_majority(self):
        cluster = remora.Cluster(3, arguments=["--capacity", "8M"])
        self.addCleanup(cluster.close)
        cluster.start()
        writer = cluster.add("writer").start()
        writer.wait_cluster()
        writer.cli("volume", "create", "v")
        self.refused(writer, "put", "v", self.file("large", 12 * MIB), "/large")
        writer.cli("put", "v", self.file("small", 3 * MIB), "/small")
        with open(self.directory + "/small", "rb") as f:
            self.assertEqual(cluster[2].cli("cat", "v", "/small").stdout, f.read())
        for node in cluster.nodes[:3]:
            with node.api() as api:
                self.assertLessEqual(api.call("cluster.status")["contents"]["bytes"], 8 * MIB)


class Full(unittest.TestCase):
    def setUp(self):
        if REFUSED is not None:
            print("skipped:", REFUSED)
            self.skipTest(REFUSED)
        self.disks, self.mounts = [], tempfile.mkdtemp(prefix="remora-disk-")
        self.addCleanup(self.close_disks)  # after the nodes on them
        self.directory = self.enterContext(remora.scratch())
        self.rng = random.Random(1)

    def close_disks(self):
        for disk in self.disks:
            disk.close()
        shutil.rmtree(self.mounts)

    def disk(self, name, mib):
        disk = Disk(self.mounts, name, mib)
        self.disks.append(disk)
        return disk

    def node(self, disk, floor=None):
        """A node of its own cluster, its data on that disk; floor None: the default."""
        node = remora.Node(self.directory, "n", remora.free_ports(1)[0], [] if floor is None else ["--free-space", floor])
        node.data = os.path.join(disk.path, "data")
        return node

    def file(self, name, size):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as f:
            for _ in range(0, size, MIB):
                f.write(self.rng.randbytes(min(size, MIB)))
        return path

    def soon(self, node, code, *arguments, **options):
        began = time.monotonic()
        result = node.cli(*arguments, check=code, **options)
        self.assertLess(time.monotonic() - began, SOON_S, arguments)
        if code == 5:
            self.assertIn(b"no space", result.stderr.lower())
        return result

    def until(self, node, *arguments, code=0, **options):
        """Some verb that works soon."""
        deadline = time.monotonic() + remora.READY_S
        while True:
            result = node.cli(*arguments, check=None, **options)
            if result.returncode == code:
                return result
            self.assertLess(time.monotonic(), deadline, (arguments, result.returncode, result.stderr, node.tail()))
            time.sleep(0.1)

    def prepare(self, node):
        node.start()
        node.cli("volume", "create", "v")
        node.cli("put", "v", self.file("small", 1000), "/small")
        node.cli("put", "v", self.file("big", 8 * MIB), "/big")
        with node.api() as api:
            api.write(api.view("v", label="work"), "draft", b"not committed yet")

    def writes(self, code, node, suffix):
        """Every verb that writes, each with that exit code."""
        self.soon(node, code, "put", "v", self.directory + "/small", "/a" + suffix)
        self.soon(node, code, "put", "v", self.directory + "/big", "/b" + suffix)
        self.soon(node, code, "put", "v", "-", "/c" + suffix, input=b"hello" * 1000)
        self.soon(node, code, "mkdir", "v", "/d" + suffix)
        self.soon(node, code, "cp", "v", "/big", "/e" + suffix)
        self.soon(node, code, "volume", "create", "w" + suffix)
        self.soon(node, code, "commit", "v", "--label", "work")
        with node.api() as api:
            try:
                api.call("fs.write", view=api.view("v", local=True), path="f", offset=0, data=b"x" * 1000, create=True)
                self.assertEqual(code, 0)
            except remora.ApiError as error:
                self.assertEqual((code, error.symbol), (5, "NOSPACE"))

    def reads(self, node, *options):
        self.assertEqual({b"big", b"small"} - set(self.soon(node, 0, "ls", "v", *options).stdout.split()), set())
        with open(self.directory + "/big", "rb") as f:
            self.assertEqual(self.soon(node, 0, "cat", "v", "/big", *options).stdout, f.read())
        node.cli("get", "v", "/big", os.path.join(self.directory, "copy"), "--force", *options)
        node.cli("cluster", "status")

    def test_somebody_else_fills_the_disk(self):
        disk = self.disk("disk", 96)
        node = self.node(disk)
        self.prepare(node)
        pid = node.process.pid
        for turn in range(2):
            disk.fill()
            self.writes(5, node, f"x{turn}")
            self.reads(node)
            self.assertIn("disk_full", node.tail())
            self.assertEqual(node.cli("ls", "v").stdout, node.cli("ls", "v", "--local").stdout)
            disk.empty()
            self.until(node, "mkdir", "v", f"/again{turn}")
            self.writes(0, node, f"y{turn}")
        self.assertEqual(node.process.pid, pid)
        self.assertIsNone(node.process.poll())
        self.assertEqual(node.stop(), 0)

    def test_a_log_that_could_not_be_written_is_opened_again(self):
        disk = self.disk("disk", 96)
        node = self.node(disk, "0")
        self.prepare(node)
        pid = node.process.pid
        done = []
        deadline = time.monotonic() + remora.READY_S
        while "store_failed" not in node.tail():
            self.assertLess(time.monotonic(), deadline, node.tail())
            disk.fill()
            if node.cli("rm", "v", "/none", check=None).returncode == 0:
                done.append("none")
            node.cli("ls", "v", check=None)
        self.writes(5, node, "x")
        self.soon(node, 5, "ls", "v")
        for _ in range(50):  # private views that end leave nothing behind
            self.reads(node, "--local")
        with node.api() as api:
            self.assertEqual(api.call("node.info")["pid"], pid)
        time.sleep(2)
        self.assertEqual(node.tail().count("store_reopens"), 0)
        disk.empty()
        self.until(node, "ls", "v")
        self.assertEqual(node.tail().count("store_reopens"), 1)
        self.assertEqual(node.tail().count("remora node ready"), 1)
        self.reads(node)
        self.writes(0, node, "y")
        self.assertEqual(node.cli("cat", "v", "/draft").stdout, b"not committed yet")
        self.assertIsNone(node.process.poll())
        self.assertEqual(node.stop(), 0)
        node.start()
        self.assertEqual(node.cli("cat", "v", "/draft").stdout, b"not committed yet")

    def test_a_put_that_does_not_fit(self):
        disk = self.disk("disk", 96)
        node = self.node(disk)
        node.start()
        node.cli("volume", "create", "v")
        node.cli("put", "v", self.file("small", 1000), "/small")
        large = self.file("large", 150 * MIB)
        used = disk.used()
        for source in ("file", "-"):
            def list_all(stop):
                self.soon(node, 0, "ls", "v")
                while not stop.is_set():
                    self.soon(node, 0, "ls", "v")

            with remora.Threads(list_all), open(large, "rb") as f:
                self.soon(node, 5, "put", "v", large if source == "file" else "-", "/large", stdin=f)
        self.soon(node, 0, "ls", "v")
        disk.resize(512)
        node.cli("put", "v", large, "/large")
        with open(large, "rb") as f:
            self.assertEqual(node.cli("cat", "v", "/large").stdout, f.read())
        self.assertGreater(disk.used(), used + 150 * MIB)
        self.assertNotIn("store_failed", node.tail())

    def test_a_start_without_room(self):
        disk = self.disk("disk", 96)
        disk.fill()
        first = self.node(disk)
        first.start(wait=False)
        self.assertEqual(first.process.wait(remora.READY_S), 5)
        self.assertIn(first.data, first.tail())
        self.assertIn("no space left", first.tail().lower())
        disk.empty()
        self.prepare(first)
        self.assertEqual(first.stop(), 0)
        disk.fill()
        first.start()  # the reserve makes room for so much
        self.reads(first)
        self.writes(5, first, "x")
        disk.empty()
        self.until(first, "mkdir", "v", "/again")
        self.writes(0, first, "y")

    def test_a_target_without_room(self):
        disk, target = self.disk("disk", 96), self.disk("target", 4)
        node = self.node(disk)
        self.prepare(node)
        before = target.used()
        self.soon(node, 5, "get", "v", "/big", os.path.join(target.path, "big"))
        self.assertEqual(os.listdir(target.path), [])
        self.soon(node, 5, "get", "v", "/", os.path.join(target.path, "tree"))
        self.assertFalse(os.path.exists(os.path.join(target.path, "tree")))
        self.soon(node, 5, "checkout", "v", os.path.join(target.path, "checkout"))
        self.assertEqual(os.listdir(target.path), [])
        self.assertEqual(target.used(), before)
        target.resize(64)
        node.cli("checkout", "v", os.path.join(target.path, "checkout"))
        node.cli("get", "v", "/big", os.path.join(target.path, "big"))

    def cluster(self, disk):
        """Three voters, the third on that disk."""
        cluster = remora.Cluster(3)
        self.addCleanup(cluster.close)
        cluster[3].data = os.path.join(disk.path, "data")
        cluster.start()
        return cluster

    def test_one_voter_is_full(self):
        disk = self.disk("disk", 128)
        cluster = self.cluster(disk)
        cluster[1].cli("volume", "create", "v")
        cluster[1].cli("put", "v", self.file("first", 3 * MIB), "/first")
        self.until(cluster[3], "cat", "v", "/first")
        deadline = time.monotonic() + remora.READY_S
        while "store_failed" not in cluster[3].tail():
            self.assertLess(time.monotonic(), deadline, cluster[3].tail())
            disk.fill()
            cluster[3].cli("ls", "v", check=None)
        for i in range(5):
            cluster[1 + i % 2].cli("put", "v", self.file(f"f{i}", MIB * i + 1000), f"/f{i}")
            self.soon(cluster[3], 5, "put", "v", self.directory + "/f0", "/never")
        self.assertEqual(cluster[3].cli("ls", "v", "--local").stdout.split(), [b"first"])
        self.soon(cluster[3], 5, "ls", "v")
        cluster[3].cli("get", "v", "/first", os.path.join(self.directory, "copy"), "--local")
        disk.empty()
        expected = sorted([b"first"] + [f"f{i}".encode() for i in range(5)])
        self.assertEqual(sorted(self.until(cluster[3], "ls", "v").stdout.split()), expected)
        # It votes again: with another one gone it is needed.
        cluster[1].kill()
        self.until(cluster[3], "put", "v", self.directory + "/f4", "/again")
        cluster[2].cli("cat", "v", "/again")
        self.assertIsNone(cluster[3].process.poll())

    def test_a_majority_has_room_for_what_the_writer_has_not(self):
        disk = self.disk("disk", 64)
        cluster = self.cluster(disk)
        cache_disk = self.disk("cache", 48)
        cache = cluster.add("cache")
        cache.data = os.path.join(cache_disk.path, "data")
        cache.start()
        cache.wait_cluster()
        cluster[1].cli("volume", "create", "v")
        cluster[1].cli("put", "v", self.file("small", 5 * MIB), "/small")
        cluster[1].cli("put", "v", self.file("large", 80 * MIB), "/large")  # two of three have the room
        self.until(cluster[3], "cat", "v", "/small")
        for node in (cache, cluster[3]):
            self.soon(node, 5, "cat", "v", "/large")
            self.soon(node, 5, "get", "v", "/large", os.path.join(self.directory, "large-copy"))
            self.assertFalse(os.path.exists(os.path.join(self.directory, "large-copy")))
            with open(self.directory + "/small", "rb") as f:
                self.assertEqual(node.cli("cat", "v", "/small").stdout, f.read())
            self.assertIn(b"large", node.cli("ls", "v").stdout)
        cache_disk.resize(256)
        with open(self.directory + "/large", "rb") as f:
            self.assertEqual(self.until(cache, "cat", "v", "/large").stdout, f.read())

    def test_a_cache_makes_room_for_what_is_read(self):
        disk = self.disk("disk", 96)
        cluster = remora.Cluster(3)
        self.addCleanup(cluster.close)
        cluster.start()
        cache = cluster.add("cache", "--free-space", "8M")
        cache.data = os.path.join(disk.path, "data")
        cache.start()
        cache.wait_cluster()
        names = [f"f{i}" for i in range(24)]
        cluster[1].cli("volume", "create", "v")
        for name in names:
            cluster[1].cli("put", "v", self.file(name, 5 * MIB), "/" + name)
        for turn in range(2):
            for name in names:
                with open(os.path.join(self.directory, name), "rb") as f:
                    # Refused for a moment, if all that is here came in a moment ago: that is spared.
                    self.assertEqual(self.until(cache, "cat", "v", "/" + name).stdout, f.read())
                self.assertGreater(disk.free(), 7 * MIB)
            if turn == 0:  # somebody else takes a third of the disk, so that less than the floor is left
                self.assertLess(disk.free(), 50 * MIB)
                with open(os.path.join(disk.path, "other"), "wb") as f:
                    f.write(b"y" * (disk.free() - 4 * MIB))
                deadline = time.monotonic() + remora.READY_S
                while disk.free() < 8 * MIB:
                    self.assertLess(time.monotonic(), deadline, cache.tail())
                    time.sleep(0.1)
        self.assertNotIn("store_failed", cache.tail())


if __name__ == "__main__":
    unittest.main(verbosity=2)
