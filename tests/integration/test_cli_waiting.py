"""How long verbs of the command line wait, for what, and what they say when it was in vain."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import remora

SPARE_S = 2 * remora.SLOW  # that a verb may take beyond its --timeout


def later(seconds, action):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


class Timeout(unittest.TestCase):
    def within(self, node, seconds, *arguments):
        """The verb fails for want of a majority, when its time is over and not before."""
        began = time.monotonic()
        result = node.cli(*arguments, "--timeout", str(seconds), check=3)
        took = time.monotonic() - began
        self.assertGreaterEqual(took, seconds * 0.9, arguments)
        self.assertLess(took, seconds + SPARE_S, arguments)
        return result.stderr.decode()

    def test_without_a_majority_every_verb_ends_in_its_time_and_says_why(self):
        with remora.Cluster(3) as cluster:
            node = cluster[1]
            node.cli("volume", "create", "v")
            node.cli("mkdir", "v", "before")
            cluster[2].kill()
            cluster[3].kill()
            for arguments in (("ls", "v"), ("log", "v"), ("log", "v", "--lost"), ("mkdir", "v", "d"), ("wait", "--volume", "v")):
                self.assertIn("no majority", self.within(node, 2, *arguments), arguments)
            for arguments in (("volume", "create", "w"), ("volume", "rename", "v", "w", "-y"), ("ls", "unknown")):
                self.assertIn("the cluster's log has no leader", self.within(node, 2, *arguments), arguments)
            self.assertRegex(self.within(node, 2, "cluster", "status", "--wait"), "volume v: its voter n[23] is (suspect|dead)|no leader")
            self.assertIn("--local", node.cli("ls", "v", "--timeout", "1", check=3).stderr.decode())
            # What this node knows is said where it is asked for, and only there.
            self.assertEqual(len(json.loads(node.cli("log", "v", "--local", "--json").stdout)["commits"]), 1)
            self.assertEqual(node.cli("log", "v", "--json", "--timeout", "1", check=3).stdout, b"")
            info = json.loads(node.cli("volume", "info", "v", "--json", "--timeout", "1").stdout)
            self.assertTrue(any("no majority" in w for w in info["warnings"]), info)

    def test_a_node_that_hangs_is_given_up_soon_after_the_timeout(self):
        with remora.Alone() as node:
            node.pause()
            try:
                self.assertIn("did not answer for 2 s", self.within(node, 2, "ls", "v"))
                self.assertIn("did not answer for 2 s", self.within(node, 2, "wait"))
            finally:
                node.resume()


class Waiting(unittest.TestCase):
    def test_wait_lasts_as_long_as_it_was_told(self):
        """Longer than verbs wait for a node that is starting (10 s)."""
        with remora.Alone() as node:
            node.cli("volume", "create", "v")
            for verb in (("wait", "--volume", "v"), ("cluster", "status", "--wait")):
                node.stop()
                starter = later(12, node.start)
                node.cli(*verb, "--timeout", str(60 * remora.SLOW))
                starter.join()
            node.stop()
            began = time.monotonic()
            result = node.cli("wait", "--timeout", "1", check=3)
            self.assertLess(time.monotonic() - began, 1 + SPARE_S)
            self.assertIn("no node answers", result.stderr.decode())
            node.start()

    def test_wait_outlives_a_restart_of_its_node(self):
        """Neither for the volume, which comes late, nor for the node does it give up."""
        with remora.Alone() as node:
            process = subprocess.Popen([remora.REMORA, "wait", "--volume", "late", "--json", "--socket", node.socket, "--timeout", "60"],
                                       stdout=subprocess.PIPE)
            time.sleep(0.5)
            node.stop()
            node.start()
            node.cli("volume", "create", "late")
            out, _ = process.communicate(timeout=60 * remora.SLOW)
            self.assertEqual(process.returncode, 0)
            self.assertEqual(json.loads(out)["waiting"], "")

    def test_what_was_lacking_is_said_not_that_time_is_up(self):
        with remora.Alone() as node:
            refused = node.cli("wait", "--volume", "never", "--timeout", "2", check=3)
            self.assertIn(b'no volume "never"', refused.stderr)

    def test_interrupted_means_130(self):
        with remora.Alone() as node:
            for number in (signal.SIGINT, signal.SIGTERM):
                for arguments in (["wait", "--volume", "never"], ["ls", "v", "--socket", os.path.join(node.directory, "none")]):
                    process = subprocess.Popen([remora.REMORA, *arguments], env={**os.environ, "REMORA_SOCKET": node.socket},
                                               stderr=subprocess.DEVNULL)
                    time.sleep(0.3 * remora.SLOW)
                    process.send_signal(number)
                    self.assertEqual(process.wait(10 * remora.SLOW), 130, arguments)


if __name__ == "__main__":
    unittest.main(verbosity=2)
