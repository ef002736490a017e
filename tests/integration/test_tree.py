"""The main job: a tree with every kind of file and a large one goes in on one node and comes out identical on another, by get and by
checkout, from a cold cache and after every node was killed."""
import filecmp
import os
import random
import subprocess
import unittest

import remora
import tree


class Tree(unittest.TestCase):
    def test_everything_survives_the_journey(self):
        files = remora.scale(1000, 10000)
        large = remora.scale(200 << 20, 2 << 30)
        with remora.Cluster(3) as cluster:
            source = os.path.join(cluster.directory, "source")
            tree.make_tree(source, files)
            rng = random.Random(2)
            tree.write_file(os.path.join(source, "large"), large, rng)
            expected = tree.describe(source)
            cluster[1].cli("volume", "create", "things")
            cluster[1].cli("put", "things", source, "/tree")
            with self.subTest("get on another node"):
                got = os.path.join(cluster.directory, "got")
                cluster[3].cli("get", "things", "/tree", got)
                tree.assert_same(self, dict(expected), tree.describe(got))
                self.assertTrue(tree.is_sparse(os.path.join(got, "special", "sparse")))
            with self.subTest("a cache that never voted"):
                cache = cluster.add("cache").start()
                cache.wait_cluster()
                got = os.path.join(cluster.directory, "got-by-cache")
                cache.cli("get", "things", "/tree", got)
                tree.assert_same(self, dict(expected), tree.describe(got))
            with self.subTest("checkout"):
                out = os.path.join(cluster.directory, "out")
                cluster[3].cli("checkout", "things:tree", out)
                tree.assert_same(self, {p: {k: v for k, v in i.items() if k != "mode" or not p == "."} for p, i in expected.items()},
                                 {p: {k: v for k, v in i.items() if k != "mode" or not p == "."}
                                  for p, i in tree.describe(os.path.realpath(out)).items()}, ignore=("link",))
            with self.subTest("after every node was killed"):
                for node in cluster.nodes:
                    node.kill()
                for node in cluster.nodes:
                    node.start(wait=False)
                for node in cluster.nodes:
                    node.wait_ready()
                got = os.path.join(cluster.directory, "got-again")
                cluster[2].cli("get", "things", "/tree", got)
                tree.assert_same(self, dict(expected), tree.describe(got))

    def test_put_again_changes_nothing_and_standard_streams_work(self):
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "v")
            data = random.Random(3).randbytes(5 << 20)
            cluster[1].cli("put", "v", "-", "/stream", input=data)
            self.assertEqual(cluster[2].cli("cat", "v", "/stream").stdout, data)
            self.assertEqual(cluster[2].cli("cat", "v", "/stream", "--offset", "1000000", "--length", "3000000").stdout, data[1000000:4000000])
            self.assertEqual(cluster[3].cli("get", "v", "/stream", "-").stdout, data)
            refused = cluster[1].cli("put", "v", "-", "/stream", input=b"other", check=2)
            self.assertIn(b"stream", refused.stderr)
            self.assertEqual(cluster[2].cli("cat", "v", "/stream").stdout, data)
            cluster[1].cli("put", "-f", "v", "-", "/stream", input=b"other")
            self.assertEqual(cluster[2].cli("cat", "v", "/stream").stdout, b"other")

    def test_a_killed_put_resumes(self):
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "v")
            path = os.path.join(cluster.directory, "large")
            tree.write_file(path, 64 << 20, random.Random(4))
            put = subprocess.Popen([remora.REMORA, "put", "v", path, "/large"], env={**os.environ, "REMORA_SOCKET": cluster[1].socket},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                put.wait(0.15)
            except subprocess.TimeoutExpired:
                put.kill()
                put.wait()
            cluster[1].kill()
            cluster[1].start()
            cluster[1].cli("put", "-f", "v", path, "/large")
            got = os.path.join(cluster.directory, "got")
            cluster[3].cli("get", "v", "/large", got)
            self.assertTrue(filecmp.cmp(path, got, shallow=False))


if __name__ == "__main__":
    unittest.main(verbosity=2)
