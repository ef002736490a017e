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

            def status():
                return json.loads(node.cli("cluster", "status", "--json").stdout)

            before = status()["sent_bytes"]
            process = subprocess.Popen([remora.REMORA, "put", "v", source, "/d"], env={**os.environ, "REMORA_SOCKET": node.socket},
                                       stderr=subprocess.PIPE, text=True)
            while process.poll() is None and status()["contents"]["bytes"] < 5 * size:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60 * remora.SLOW)
            self.assertEqual(process.returncode, 130, error)
            self.assertIn("the same put sends the rest", error)
            self.assertEqual(node.cli("ls", "v").stdout, b"")
            first = self.settled(status)
            node.cli("put", "v", source, "/d")
            second = self.settled(status) - first
            first -= before
            self.assertGreater(first, 2 * size)
            # Each byte goes out once or, to a voter that asked while another's was on its way, a few times.
            self.assertLess(second, files * size - first // 2)
            node.cli("get", "v", "d", os.path.join(cluster.directory, "got"))
            subprocess.run(["diff", "-r", source, os.path.join(cluster.directory, "got")], check=True)

    def settled(self, status):
        """What has been sent, once nothing more goes out."""
        sent, deadline = -1, time.monotonic() + 30 * remora.SLOW
        while time.monotonic() < deadline:
            now = status()["sent_bytes"]
            if now - sent < MIB and sent >= 0:
                return now
            sent = now
            time.sleep(1)
        self.fail("a node goes on sending")

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
