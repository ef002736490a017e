"""How a cluster begins, who belongs to it, and what nobody else gets."""
import json
import os
import signal
import socket
import time
import unittest

import remora


def keygen(path, *arguments):
    remora.run("keygen", path, *arguments, check=True)
    return path


def eventually_gone(node, volume):
    """A name that was taken away elsewhere may be served until this node's copy of the registry has heard of it, so for a moment."""
    deadline = time.monotonic() + remora.READY_S
    while node.cli("cat", volume, "/f", check=None).returncode != 1:
        assert time.monotonic() < deadline, f"{node.name} still knows {volume}"


class Beginning(unittest.TestCase):
    def test_one_node_without_configuration_is_useful(self):
        with remora.scratch() as directory:
            node = remora.Node(directory, "single", remora.free_ports(1)[0], []).start()
            node.cli("volume", "create", "v")
            node.cli("put", "v", "-", "/f", input=b"hello")
            self.assertEqual(node.cli("cat", "v", "/f").stdout, b"hello")
            self.assertEqual(node.stop(), 0)
            node.start()
            self.assertEqual(node.cli("cat", "v", "/f").stdout, b"hello")

    def test_a_stop_keeps_drafts_that_nobody_asked_to_commit(self):
        with remora.scratch() as directory:
            node = remora.Node(directory, "single", remora.free_ports(1)[0], []).start()
            node.cli("volume", "create", "v")
            with node.api() as api:
                api.write(api.view("v", label="manual"), "by-hand", b"1")
                api.write(api.view("v", label="auto", auto=True), "by-itself", b"2")
            self.assertEqual(node.stop(), 0)
            node.start()
            self.assertEqual(node.cli("ls", "v").stdout.split(), [b"by-itself"])
            node.cli("commit", "v", "--label", "manual")
            self.assertEqual(node.cli("ls", "v").stdout.split(), [b"by-hand", b"by-itself"])
            with node.api() as api:  # a held one is not committed; that is said
                view = api.view("v", label="auto", auto=True)
                api.call("view.hold", view=view, hold=True)
                api.write(view, "held", b"3")
                self.assertEqual(node.stop(), 1)

    def test_a_key_alone_founds_nothing(self):
        with remora.scratch() as directory:
            node = remora.Node(directory, "waits", remora.free_ports(1)[0], ["--key", keygen(directory + "/key")]).start()
            time.sleep(3)
            with node.api() as api:
                info = api.call("node.info")
                self.assertIsNone(info["cluster"])
                self.assertIn("init", info["waiting"])
                with self.assertRaises(remora.ApiError):
                    api.call("volume.create", name="v")
            node.cli("cluster", "init")
            node.cli("cluster", "init", check=2)
            node.cli("volume", "create", "v")

    def test_fifty_creators_get_one_volume(self):
        with remora.Cluster(3) as cluster:
            ids = set()

            def create(i):
                with cluster[i % 3 + 1].api() as api:
                    ids.add(bytes(api.call("volume.create", name="shared", if_missing=True)["id"]))

            with remora.Threads(*(lambda stop, i=i: create(i) for i in range(50))):
                pass
            self.assertEqual(len(ids), 1)
            with cluster[1].api() as api:
                with self.assertRaises(remora.ApiError) as e:
                    api.call("volume.create", name="shared")
                self.assertEqual(e.exception.symbol, "EXISTS")
                with self.assertRaises(remora.ApiError) as e:
                    api.call("volume.create", name="shared", if_missing=True, version=1)
                self.assertEqual(e.exception.symbol, "REFUSED")

    def test_registry_verbs(self):
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "a")
            cluster[2].cli("volume", "create", "a", check=2)
            cluster[2].cli("put", "a", "-", "/f", input=b"1")
            cluster[2].cli("volume", "rename", "a", "b", "-y")
            eventually_gone(cluster[3], "a")
            self.assertEqual(cluster[3].cli("cat", "b", "/f").stdout, b"1")
            cluster[3].cli("volume", "delete", "b", "-y")
            eventually_gone(cluster[1], "b")
            cluster[1].cli("volume", "delete", "b", "-y", check=1)
            cluster[1].cli("volume", "delete", "b", "-y", "--allow-missing")
            cluster[1].cli("volume", "undelete", "b")
            self.assertEqual(cluster[2].cli("cat", "b", "/f").stdout, b"1")
            for name in ("", "x" * 65, "a/b", "a b"):
                cluster[1].cli("volume", "create", name, check=2)

    def test_a_dead_node_is_noticed_and_taken_back(self):
        with remora.Cluster(3) as cluster:
            def state(of, at=1):
                with cluster[at].api() as api:
                    return {m["name"]: m["state"] for m in api.call("cluster.members")["members"]}.get(of)

            def wait(states, seconds):
                deadline = time.monotonic() + seconds * remora.SLOW
                while state("n3") not in states:
                    self.assertLess(time.monotonic(), deadline, f"n3 is {state('n3')}, not {states}")
                    time.sleep(0.1)

            wait({"alive"}, 10)
            cluster[3].kill()
            wait({"dead"}, 10)
            cluster[3].start()
            wait({"alive"}, 10)
            while state("n1", at=3) != "alive":  # else it could not tell
                time.sleep(0.1)
            self.assertEqual(cluster[3].stop(), 0)
            wait({"left"}, 2)  # it said so
            cluster[3].start()
            wait({"alive"}, 10)


class Keys(unittest.TestCase):
    def write(self, path, *keys):
        with open(path + ".new", "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            for key in keys:
                with open(key) as one:
                    f.write(one.read() + "\n")
        os.rename(path + ".new", path)

    def read_again(self, node):
        before = node.tail(1 << 20).count("info start ")
        pid = node.process.pid
        node.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + remora.READY_S
        while node.tail(1 << 20).count("info start ") == before:
            self.assertLess(time.monotonic(), deadline, node.tail())
            time.sleep(0.05)
        node.wait_ready()
        self.assertEqual(node.process.pid, pid)
        self.assertIsNone(node.process.poll())

    def agree(self, cluster):
        """All take each other, whatever keys they use."""
        deadline = time.monotonic() + remora.READY_S
        while cluster[1].cli("put", "v", "-", "/f", "-f", input=b"x", check=None).returncode != 0 or any(
                node.cli("cat", "v", "/f", check=None).returncode != 0 for node in cluster.nodes):
            self.assertLess(time.monotonic(), deadline, cluster[1].tail())

    def test_are_exchanged_without_a_stop(self):
        cluster = remora.Cluster(3)
        self.addCleanup(cluster.close)
        new = keygen(cluster.directory + "/new-key")
        files = []
        for node in cluster.nodes:
            files.append(os.path.join(cluster.directory, node.name + ".key"))
            self.write(files[-1], cluster.key)
            at = node.arguments.index("--key")
            node.arguments[at + 1] = files[-1]
        cluster.start()
        cluster[1].cli("volume", "create", "v")
        with cluster[1].api() as api:
            api.write(api.view("v", label="work"), "draft", b"kept")
        for keys in ((cluster.key, new), (new, cluster.key), (new,)):
            for node, path in zip(cluster.nodes, files):
                self.write(path, *keys)
                self.read_again(node)
            self.agree(cluster)
        cluster[1].cli("commit", "v", "--label", "work")
        self.assertEqual(cluster[3].cli("cat", "v", "/draft").stdout, b"kept")
        # A file that is no good changes nothing.
        with open(files[0], "w") as f:
            f.write("nonsense\n")
        cluster[1].process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + remora.READY_S
        while "the old ones are used on" not in cluster[1].tail():
            self.assertLess(time.monotonic(), deadline, cluster[1].tail())
            time.sleep(0.05)
        cluster[1].cli("put", "v", "-", "/g", input=b"y")
        # Whoever has the old key only is a stranger now.
        stranger = cluster.add("stranger", key=cluster.key).start()
        time.sleep(2)
        with stranger.api() as api:
            self.assertIsNone(api.call("node.info")["cluster"])


class Strangers(unittest.TestCase):
    def test_two_clusters_never_mix_even_on_a_recycled_address(self):
        """Same key, so that only the cluster's identity keeps them apart; the other's node takes over a dead one's address."""
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "ours")
            cluster[1].cli("put", "ours", "-", "/f", input=b"1")
            cluster[3].kill()
            other = remora.Node(cluster.directory, "other", cluster[3].port, ["--key", cluster.key, "--vote"]).start()
            other.cli("cluster", "init")
            other.cli("volume", "create", "theirs")
            other.cli("put", "theirs", "-", "/g", input=b"2")
            time.sleep(5)
            with other.api() as api:
                self.assertEqual([v["name"] for v in api.call("volume.list")["volumes"]], ["theirs"])
                self.assertEqual(len(api.call("cluster.members")["members"]), 1)
            for node in (cluster[1], cluster[2]):
                with node.api() as api:
                    self.assertEqual([v["name"] for v in api.call("volume.list")["volumes"]], ["ours"])
                    self.assertNotIn("other", [m["name"] for m in api.call("cluster.members")["members"]])
            cluster[1].cli("put", "ours", "-", "/h", input=b"3")
            self.assertEqual(cluster[2].cli("cat", "ours", "/h").stdout, b"3")

    def test_another_key_gets_nowhere(self):
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "v")
            wrong = keygen(cluster.directory + "/wrong")
            stranger = remora.Node(cluster.directory, "stranger", remora.free_ports(1)[0], ["--key", wrong, "--join", cluster.join]).start()
            time.sleep(4)
            with stranger.api() as api:
                self.assertIsNone(api.call("node.info")["cluster"])
                self.assertEqual(api.call("volume.list")["volumes"], [])
            with cluster[1].api() as api:
                self.assertEqual(len(api.call("cluster.members")["members"]), 3)

    def test_a_cache_credential_neither_votes_nor_writes_elsewhere(self):
        with remora.Cluster(3) as cluster:
            for name in ("given", "other", "read"):
                cluster[1].cli("volume", "create", name)
            cluster[1].cli("put", "given", "-", "/noted", input=b"0")
            commit = cluster[1].cli("log", "given", "--json")
            self.assertIn(json.loads(commit.stdout)["commits"][0]["commit"].encode(), cluster[1].cli("log", "given").stdout)
            lesser = keygen(cluster.directory + "/cache-key", "--from", cluster.key, "--role", "cache", "--volume", "given", "--volume", "read:ro")
            refused = remora.run(*cluster.add("voting", "--vote", key=lesser).command()[1:])
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn(b"may not vote", refused.stderr)
            cache = cluster.add("cache", key=lesser).start()
            cache.wait_cluster()
            cache.cli("put", "given", "-", "/f", input=b"1")
            self.assertEqual(cluster[1].cli("cat", "given", "/f").stdout, b"1")
            for verb, volume in (("put", "other"), ("put", "read"), ("cat", "other")):
                before = time.monotonic()
                refused = cache.cli(verb, volume, *(("-", "/f") if verb == "put" else ("/f",)), input=b"1", check=None)
                self.assertEqual(refused.returncode, 7, refused.stderr)
                self.assertIn(volume.encode(), refused.stderr)
                self.assertLess(time.monotonic() - before, 10)  # at once, not after a deadline
                self.assertEqual(cluster[1].cli("ls", volume).stdout, b"")
            for arguments in (("log", "other"), ("volume", "info", "other"), ("volume", "create", "new"), ("volume", "delete", "-y", "other")):
                refused = cache.cli(*arguments, check=7)
                self.assertIn(b"credential", refused.stderr)
                self.assertIn(arguments[-1].encode(), refused.stderr)
            cluster[2].cli("put", "read", "-", "/g", input=b"2")
            self.assertEqual(cache.cli("cat", "read", "/g").stdout, b"2")
            cluster[1].cli("volume", "create", "later")
            with cluster[1].api() as api:
                self.assertNotIn("cache", api.call("volume.info", name="later")["voters"])

    def test_full_voters_refuse_and_say_so(self):
        """What fits nowhere ends with "no space", soon; what fits still goes."""
        with remora.Cluster(3, arguments=["--capacity", "8M"]) as cluster:
            cluster[1].cli("volume", "create", "v")
            cache = cluster.add("cache").start()
            cache.wait_cluster()
            refused = cache.cli("put", "v", "-", "/large", input=os.urandom(20 << 20), check=None)
            self.assertEqual(refused.returncode, 5, refused.stderr)
            self.assertIn(b"room", refused.stderr)
            cache.cli("put", "v", "-", "/small", input=os.urandom(2 << 20))
            self.assertEqual(cluster[2].cli("ls", "v").stdout, b"small\n")

    def test_garbage_at_the_ports_disturbs_nobody(self):
        with remora.Cluster(3) as cluster:
            cluster[1].cli("volume", "create", "v")

            def vandal(stop):
                n = 0
                while not stop.is_set():
                    for port in (cluster[1].port, cluster[1].port + 1):
                        with socket.socket() as s:
                            s.settimeout(1)
                            try:
                                s.connect(("127.0.0.1", port))
                                s.sendall(os.urandom(200) if n % 2 else b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(60))
                            except OSError:
                                pass
                    n += 1
                    time.sleep(0.01)

            with remora.Threads(vandal):
                for i in range(20):
                    cluster[1].cli("put", "v", "-", f"/f{i}", input=b"%d" % i)
                    self.assertEqual(cluster[2].cli("cat", "v", f"/f{i}").stdout, b"%d" % i)


class BadInput(unittest.TestCase):
    def test_messages_name_the_thing_and_nothing_changes(self):
        with remora.scratch() as directory:
            node = remora.Node(directory, "single", remora.free_ports(1)[0], []).start()
            node.cli("volume", "create", "v")
            for arguments, code, text in [
                (("ls", "nothing"), 1, b"nothing"),
                (("put", "v", "/does/not/exist"), 1, b"/does/not/exist"),
                (("cat", "v", "/missing"), 1, b"missing"),
                (("rm", "v", "/missing"), 1, b"No such file or directory"),
                (("cat", "v", "/../etc"), 2, b".."),
                (("mkdir", "v", "/" + "x" * 256), 2, b"255"),
                (("frobnicate",), 2, b"frobnicate"),
                (("ls", "--frobnicate", "v"), 2, b"frobnicate"),
                (("volume", "create", "v"), 2, b"v"),
            ]:
                with self.subTest(arguments=arguments):
                    result = node.cli(*arguments, check=None)
                    self.assertEqual(result.returncode, code, result.stderr)
                    self.assertIn(text, result.stderr)
            self.assertEqual(node.cli("ls", "v").stdout, b"")
            second = remora.run(*node.command()[1:], "--socket", directory + "/second.sock", "--listen", "tcp://127.0.0.1:0")
            self.assertEqual(second.returncode, 6)
            self.assertIn(node.data.encode(), second.stderr)
            alone = remora.run("ls", "v", "--socket", directory + "/nobody.sock", "--timeout", "1")
            self.assertEqual(alone.returncode, 3)
            self.assertIn(b"nobody.sock", alone.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
