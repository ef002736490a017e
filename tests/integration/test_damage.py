"""Bytes that rot on a node's disk: never read by anybody as they are, named, set aside, and had from another holder where there is one."""
import glob
import os
import random
import shutil
import signal
import time
import unittest

import remora

MIB = 1 << 20
FILES = {"whole": 3 * MIB + 77, "packed": 5000, "tiny": 100}


def make_source(directory, seed=1):
    source = os.path.join(directory, "source")
    os.makedirs(source)
    rng = random.Random(seed)
    for name, size in FILES.items():
        with open(os.path.join(source, name), "wb") as f:
            f.write(rng.randbytes(size))
    return source


def content(source, name):
    with open(os.path.join(source, name), "rb") as f:
        return f.read()


def complete(node):
    """The files of complete contents."""
    contents = os.path.join(node.data, "contents")
    return [*glob.glob(os.path.join(contents, "whole", "*", "*")), *glob.glob(os.path.join(contents, "packs", "*"))]


def rot(node, data, at=-1):
    """Flips a bit of what holds data in that node's contents, and leaves the times alone, as a disk would. Returns the path."""
    for path in complete(node):
        with open(path, "rb") as f:
            where = f.read().find(data)
        if where < 0:
            continue
        status = os.stat(path)
        os.chmod(path, 0o600)
        with open(path, "r+b") as f:
            f.seek(where + at % len(data))
            f.write(bytes([data[at] ^ 8]))
        os.chmod(path, status.st_mode & 0o777)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return path
    raise AssertionError(f"{node.name} does not hold these {len(data)} bytes")


def holds(node, data):
    for path in complete(node):
        with open(path, "rb") as f:
            if data in f.read():
                return True
    return False


def wait_for(what, condition, seconds=remora.READY_S):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what)
        time.sleep(0.05)


class Damage(unittest.TestCase):
    def check_heals(self, cluster, node, source):
        """Each way to read, after each kind of damage."""
        whole, packed = content(source, "whole"), content(source, "packed")
        out = os.path.join(cluster.directory, f"out-{node.name}")
        path = rot(node, whole, 2 * MIB + 5)
        self.assertEqual(node.cli("cat", "v", "/t/whole").stdout, whole)
        log = node.tail(1 << 20)
        self.assertIn("content_damaged", log)
        self.assertIn(os.path.basename(path), log)
        self.assertTrue(os.path.exists(os.path.join(node.data, "contents", "quarantine", os.path.basename(path))))
        rot(node, packed)
        self.assertEqual(node.cli("get", "v", "/t/packed", "-").stdout, packed)
        if node.name == "cache":  # a voter has fetched it all, a cache what was read since
            node.cli("cat", "v", "/t/whole")
        wait_for("the file is whole again", lambda: holds(node, whole))
        rot(node, whole)
        node.cli("get", "v", "/t/whole", out)  # a descriptor, which only the reader can verify
        self.assertEqual(content(cluster.directory, f"out-{node.name}"), whole)
        rot(node, packed, 0)
        rot(node, whole, 0)
        node.cli("get", "v", "/t", out + "-tree")
        for name in FILES:
            self.assertEqual(content(out + "-tree", name), content(source, name), name)
        rot(node, whole, MIB)
        node.cli("checkout", "v:t", out + "-checkout")
        for name in FILES:
            self.assertEqual(content(out + "-checkout", name), content(source, name), name)
        self.check_files(node, source, out)

    def check_files(self, node, source, out):
        """What the size or the times of a file tell before it is read."""
        whole = content(source, "whole")
        wait_for("the file is whole again", lambda: holds(node, whole))
        path = rot(node, whole)
        os.utime(path)
        node.cli("checkout", "--hardlink", "v:t", out + "-hardlinks")
        self.assertEqual(content(out + "-hardlinks", "whole"), whole)
        with node.api() as api:
            view = api.view("v", read_only=True)
            self.assertTrue(api.call("fs.stat", view=view, path="t/whole")["complete"])
            for wrong in (lambda p: os.unlink(p), lambda p: os.truncate(p, MIB)):
                wait_for("the file is there again", lambda: os.path.exists(path))
                said = node.tail(1 << 20).count("content_damaged")
                wrong(path)

                def noticed():  # at once, or once its seal is done: it may just have come back
                    api.call("fs.stat", view=view, path="t/whole")
                    return node.tail(1 << 20).count("content_damaged") > said

                wait_for("stat noticed", noticed)
                self.assertEqual(api.read(view, "t/whole"), whole)

    def test_a_voter_and_a_cache_read_on(self):
        with remora.Cluster(3) as cluster:
            source = make_source(cluster.directory)
            cluster[1].cli("volume", "create", "v")
            cluster[1].cli("put", "v", source, "/t")
            cache = cluster.add("cache").start()
            cache.wait_cluster()
            cache.cli("get", "v", "/t", os.path.join(cluster.directory, "first"))
            for node in (cluster[2], cache):
                for name in ("whole", "packed"):
                    wait_for(f"{node.name} holds {name}", lambda n=node, m=name: holds(n, content(source, m)))
                self.check_heals(cluster, node, source)

    def test_a_voter_is_whole_again_before_anybody_reads(self):
        with remora.Cluster(3) as cluster:
            source = make_source(cluster.directory)
            whole, packed = content(source, "whole"), content(source, "packed")
            cluster[1].cli("volume", "create", "v")
            cluster[1].cli("put", "v", source, "/t")
            for name in ("whole", "packed"):
                wait_for(f"n3 holds {name}", lambda m=name: holds(cluster[3], content(source, m)))
            os.unlink(rot(cluster[3], whole))
            with cluster[3].api() as api:
                view = api.view("v", read_only=True)
                wait_for("stat sees that it has gone", lambda: not api.call("fs.stat", view=view, path="t/whole")["complete"])
                wait_for("n3 has fetched it again", lambda: holds(cluster[3], whole))
                wait_for("and says so", lambda: api.call("fs.stat", view=view, path="t/whole")["complete"])
            cluster[3].stop()  # all of it gone, while it was away
            shutil.rmtree(os.path.join(cluster[3].data, "contents"))
            cluster[3].start()
            wait_for("n3 has fetched all again", lambda: holds(cluster[3], whole) and holds(cluster[3], packed))
            self.assertIn("contents_lost", cluster[3].tail(1 << 20))
            cluster[1].kill()
            cluster[2].kill()
            self.assertEqual(cluster[3].cli("cat", "--local", "v", "/t/whole").stdout, whole)

    def test_a_lone_node_says_what_it_has_lost(self):
        with remora.Cluster(1) as cluster:
            node = cluster[1]
            source = make_source(cluster.directory)
            node.cli("volume", "create", "v")
            node.cli("put", "v", source, "/t")
            out = os.path.join(cluster.directory, "out")
            said = b"is damaged on this node and no other holder has it"
            rot(node, content(source, "whole"), MIB)
            result = node.cli("get", "v", "/t/whole", out, check=1)
            self.assertIn(b"the content of /t/whole " + said, result.stderr)
            self.assertFalse(os.path.exists(out))
            self.assertEqual([n for n in os.listdir(cluster.directory) if n.startswith(".remora-")], [])
            self.assertIn(said, node.cli("cat", "v", "/t/whole", check=1).stderr)
            self.assertIn(said, node.cli("get", "v", "/t/whole", "-", check=1).stderr)
            self.assertIn(said, node.cli("checkout", "v:t", out + "-tree", check=1).stderr)
            self.assertFalse(os.path.exists(out + "-tree"))
            self.assertEqual(node.cli("cat", "v", "/t/packed").stdout, content(source, "packed"))
            rot(node, content(source, "packed"))
            result = node.cli("cat", "v", "/t/packed", check=1)
            self.assertIn(b"the content of /t/packed " + said, result.stderr)
            self.assertEqual(result.stdout, b"")
            self.assertEqual(node.cli("cat", "v", "/t/tiny").stdout, content(source, "tiny"))
            node.process.send_signal(signal.SIGKILL)
            node.process.wait()
            node.start()
            node.wait_cluster()
            self.assertIn(said, node.cli("cat", "v", "/t/packed", check=1).stderr)
            node.cli("put", "-f", "v", os.path.join(source, "whole"), "/t/whole")  # who still has it can bring it back
            self.assertEqual(node.cli("cat", "v", "/t/whole").stdout, content(source, "whole"))

    def test_a_change_of_a_part_takes_no_damage_along(self):
        """What is written over a part of a file becomes a content of its own, whose id fits whatever it has."""
        with remora.Cluster(1) as cluster:
            node = cluster[1]
            source = make_source(cluster.directory)
            node.cli("volume", "create", "v")
            node.cli("put", "v", source, "/t")
            rot(node, content(source, "whole"), 2 * MIB + 5)
            with node.api() as api:
                view = api.view("v", label="work")
                with self.assertRaises(remora.ApiError):
                    api.call("fs.write", view=view, path="t/whole", offset=0, data=b"x")
                api.commit(view)
            result = node.cli("cat", "v", "/t/whole", check=1)
            self.assertIn(b"is damaged on this node and no other holder has it", result.stderr)

    def test_a_store_without_its_log_or_map(self):
        with remora.Cluster(1) as cluster:
            node = cluster[1]
            source = make_source(cluster.directory)
            node.cli("volume", "create", "v")
            node.cli("put", "v", source, "/t")
            for i in range(30):
                node.cli("put", "-f", "v", os.path.join(source, "tiny"), f"/n/{i}")
            with node.api() as api:
                before = api.call("volume.info", name="v")
                view = api.view("v", label="kept", auto=False)
                api.write(view, "draft", b"not committed")
            self.assertEqual(node.stop(), 0)
            shutil.rmtree(os.path.join(node.data, "map"))
            node.start()
            with node.api() as api:
                after = api.call("volume.info", name="v")
                view = api.view("v", label="kept", local=True)
                self.assertEqual(api.read(view, "draft"), b"not committed")
                self.assertEqual(api.read(view, "n/29"), content(source, "tiny"))
            for key in ("state_hash", "size", "files", "inodes", "last_commit_ms"):
                self.assertEqual(after[key], before[key], key)
            self.assertEqual(node.cli("cat", "v", "/t/whole").stdout, content(source, "whole"))
            self.assertIn("map_behind", node.tail(1 << 20))
            node.kill()  # damaged while nobody looks
            for path in glob.glob(os.path.join(node.data, "map", "*.ldb")) + glob.glob(os.path.join(node.data, "map", "MANIFEST*")):
                with open(path, "r+b") as f:
                    f.write(b"damage")
            node.start()
            with node.api() as api:
                self.assertEqual(api.call("volume.info", name="v")["state_hash"], before["state_hash"])
            self.assertIn("map_damaged", node.tail(1 << 20))
            self.assertNotEqual(glob.glob(os.path.join(node.data, "map.damaged-*")), [])
            self.assertEqual(node.stop(), 0)
            shutil.rmtree(os.path.join(node.data, "log"))
            for _ in range(2):
                node.start(wait=False)
                self.assertEqual(node.process.wait(remora.READY_S), 1)
                self.assertIn(f"{node.data} has contents but no log", node.tail())
                self.assertFalse(os.path.exists(os.path.join(node.data, "log")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
