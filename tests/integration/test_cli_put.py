"""put: goes on where an interrupted one ended, and says what it could not read in peace."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import remora

MIB = 1 << 20


class Put(unittest.TestCase):
    def test_what_had_been_sent_is_not_sent_again(self):
        files, size = 12, 16 * MIB
        with remora.Cluster(3) as cluster:
            node = cluster[1]
            node.cli("volume", "create", "v")
            source = os.path.join(cluster.directory, "source")
            os.mkdir(source)
            for i in range(files):
                with open(os.path.join(source, f"f{i:02}"), "wb") as f:
                    f.write(os.urandom(size))

            def received():
                """By the two other voters: a source may send a byte once, for them to pass on, or to each of them."""
                return sum(json.loads(other.cli("cluster", "status", "--json").stdout)["received_bytes"] for other in cluster.nodes[1:])

            before = received()
            process = subprocess.Popen([remora.REMORA, "put", "v", source, "/d"], env={**os.environ, "REMORA_SOCKET": node.socket},
                                       stderr=subprocess.PIPE, text=True)
            while process.poll() is None and received() - before < files * size // 2:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60 * remora.SLOW)
            self.assertEqual(process.returncode, 130, error)
            self.assertIn("the same put sends the rest", error)
            self.assertEqual(node.cli("ls", "v").stdout, b"")
            first = self.settled(received)
            node.cli("put", "v", source, "/d")
            second = self.settled(received) - first
            first -= before
            self.assertGreater(first, files * size // 2)
            self.assertLess(second, 2 * files * size - first // 2)
            node.cli("get", "v", "d", os.path.join(cluster.directory, "got"))
            subprocess.run(["diff", "-r", source, os.path.join(cluster.directory, "got")], check=True)

    def settled(self, received):
        """What has been received, once nothing more comes in."""
        last, deadline = -1, time.monotonic() + 30 * remora.SLOW
        while time.monotonic() < deadline:
            now = received()
            if now - last < MIB and last >= 0:
                return now
            last = now
            time.sleep(1)
        self.fail("a node goes on receiving")

    def test_a_file_that_changes_is_read_again_until_it_holds_still(self):
        with remora.Alone() as node:
            node.cli("volume", "create", "v")
            path = os.path.join(node.directory, "log")
            ending = threading.Event()

            with open(path, "wb") as f:
                f.truncate(64 * MIB)  # takes longer to read than a change takes

            def change():
                """All the time, growing and shrinking by turns."""
                with open(path, "r+b", buffering=0) as f:
                    while not ending.is_set():
                        for size in (64 * MIB + 1, 64 * MIB):
                            f.truncate(size)
                            f.write(b"x" * 4096)

            writer = threading.Thread(target=change)
            writer.start()
            try:
                error = node.cli("put", "v", path, "/log", check=6).stderr.decode()
                self.assertIn(f"{path}: it changes while it is being read", error)
                self.assertEqual(node.cli("ls", "v").stdout, b"")
            finally:
                ending.set()
                writer.join()
            node.cli("put", "v", path, "/log")
            with open(path, "rb") as f:
                self.assertEqual(node.cli("cat", "v", "log").stdout, f.read())


if __name__ == "__main__":
    unittest.main(verbosity=2)
