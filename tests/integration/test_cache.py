"""A cache keeps within its size: it lets go of what the voters have, and reads on."""
import os
import random
import time
import unittest

import remora

MIB = 1 << 20


class Cache(unittest.TestCase):
    def test_more_goes_through_a_cache_than_it_holds(self):
        size, files = 40 * MIB, 24
        with remora.Cluster(3) as cluster, cluster[1].api() as api:
            rng = random.Random(1)
            source = os.path.join(cluster.directory, "source")
            os.makedirs(source)
            for i in range(files):
                with open(os.path.join(source, f"f{i}"), "wb") as f:
                    f.write(rng.randbytes(5 * MIB))
            cluster[1].cli("volume", "create", "v")
            cluster[1].cli("put", "v", source, "/t")
            cache = cluster.add("cache", "--cache-size", str(size)).start()
            cache.wait_cluster()
            for i in range(files):
                data = cache.cli("cat", "v", f"/t/f{i}").stdout
                with open(os.path.join(source, f"f{i}"), "rb") as f:
                    self.assertEqual(data, f.read(), f"f{i}")
                with cache.api() as at_cache:
                    self.assertLessEqual(at_cache.call("cluster.status")["contents"]["bytes"], size)
            deadline = time.monotonic() + remora.READY_S
            while api.call("cluster.status")["contents"]["bytes"] < files * 5 * MIB:
                self.assertLess(time.monotonic(), deadline, "a voter let go of what it must keep")
                time.sleep(0.1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
