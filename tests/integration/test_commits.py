"""What a commit and a reload promise, on real processes: visibility, order whatever the clocks say, nothing acknowledged lost."""
import os
import random
import subprocess
import time
import unittest

import remora

HOUR = 3600


def faketime(offset_s):
    """The wall clock of a node moved; its monotonic clock is left alone."""
    library = subprocess.run(["sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"], capture_output=True, text=True, check=True).stdout.strip()
    return {"LD_PRELOAD": library, "FAKETIME": f"{offset_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}


def create(cluster, name="v"):
    with cluster[1].api() as api:
        api.call("volume.create", name=name)
    for node in cluster.nodes:
        wait_volume(node, name)


def wait_volume(node, name):
    deadline = time.monotonic() + remora.READY_S
    while True:
        with node.api() as api:
            if any(v["name"] == name for v in api.call("volume.list")["volumes"]):
                return
        assert time.monotonic() < deadline, f"{node.name} never heard of {name}"
        time.sleep(0.02)


def contents(node, volume):
    """name → bytes of every file in the root of the volume, as a reload now sees it."""
    with node.api() as api:
        view = api.view(volume)
        names, after = [], None
        while True:
            page = api.call("fs.list", view=view, path="/", **({"after": after} if after else {}))
            names += [e["name"] for e in page["entries"]]
            if not page["more"]:
                break
            after = names[-1]
        return {name: api.read(view, name) for name in names}


def wait_settled(cluster):
    """No node drives a commit any more whose caller has gone: from here on nothing changes."""
    deadline = time.monotonic() + remora.READY_S
    for node in cluster.nodes:
        with node.api() as api:
            while any(view["pending"] for view in api.call("view.list")["views"]):
                assert time.monotonic() < deadline, f"{node.name} still drives a commit\n{node.tail()}"
                time.sleep(0.05)


class Visibility(unittest.TestCase):
    def trials(self, cluster, trials, seed):
        rng = random.Random(seed)
        apis = [node.api() for node in cluster.nodes[:3]]
        views = [api.view("v") for api in apis]
        for i in range(trials):
            w, r = rng.randrange(3), rng.randrange(3)
            data = b"%d" % i
            apis[w].write(views[w], f"f{i % 50}", data)
            apis[w].commit(views[w])
            apis[r].reload(views[r])
            self.assertEqual(apis[r].read(views[r], f"f{i % 50}"), data, f"trial {i}: written on {w + 1}, read on {r + 1}")
        for api in apis:
            api.close()

    def test_a_reload_sees_every_commit_that_returned(self):
        with remora.Cluster(3) as cluster:
            create(cluster)
            self.trials(cluster, remora.scale(600, 10000) // remora.SLOW, 1)

    def test_order_does_not_depend_on_clocks(self):
        """Each commit overwrites what the one before wrote, from a node chosen at random: with one clock an hour ahead or back, the
        newest must still win everywhere."""
        if remora.SLOW > 1:
            self.skipTest("no clock is moved under a sanitizer, whose runtime does not bear libfaketime before it; "
                          "clocks_an_hour_off (tests/sim/test_world_quorum.c) moves them in every build")
        for offset in (-HOUR, HOUR):
            with self.subTest(offset=offset), remora.Cluster(3, environments={2: faketime(offset)}) as cluster:
                create(cluster)
                self.trials(cluster, remora.scale(150, 2000), 2)

    def test_concurrent_writers_of_one_file_agree_and_the_losers_are_told(self):
        with remora.Cluster(3) as cluster:
            create(cluster)
            apis = [node.api() for node in cluster.nodes]
            views = [api.view("v") for api in apis]
            for i, (api, view) in enumerate(zip(apis, views)):
                api.write(view, "index.jsonl", b"line of %d\n" % i * (1 + 50000 * i))
            calls = [api.send("view.commit", view=view) for api, view in zip(apis, views)]
            answers = [api.wait(call) for api, call in zip(apis, calls)]
            seen = set()
            for api, view in zip(apis, views):
                api.reload(view)
                seen.add(api.read(view, "index.jsonl"))
            self.assertEqual(len(seen), 1)
            lost = [v for v in apis[0].call("volume.history", name="v")["versions"] if v["path"] == "index.jsonl"]
            self.assertEqual([v["lost"] for v in lost], [True, True])
            # … and what they wrote is read by their commits, on every node, the small one's entry and the large one's content.
            wrote = {a["commit"]: b"line of %d\n" % i * (1 + 50000 * i) for i, a in enumerate(answers)}
            self.assertLess({v["commit"] for v in lost}, set(wrote))
            for api, node in zip(apis, cluster.nodes):
                view = api.view("v", read_only=True)
                for commit, data in wrote.items():
                    self.assertEqual(api.call("fs.stat", view=view, path="index.jsonl", at=commit)["size"], len(data))
                    read = api.call("fs.read", view=view, path="index.jsonl", offset=0, length=1 << 20, at=commit)["data"]
                    self.assertEqual(read, data)
                    self.assertEqual(node.cli("cat", "v", "index.jsonl", "--at", commit).stdout, data)
                self.assertIn(api.read(view, "index.jsonl"), wrote.values())
                self.assertIn(b"no longer kept", node.cli("cat", "v", "index.jsonl", "--at", "0" * 32, check=1).stderr)
                node.cli("cat", "v", "index.jsonl", "--at", "latest", check=2)
                target = os.path.join(cluster.directory, "got")
                for commit, data in wrote.items():
                    node.cli("get", "v", "index.jsonl", target, "--at", commit, "--force")
                    with open(target, "rb") as file:
                        self.assertEqual(file.read(), data)
            for api in apis:
                api.close()


class Survival(unittest.TestCase):
    def test_a_node_that_was_down_catches_up(self):
        with remora.Cluster(3) as cluster:
            create(cluster)
            cluster[3].kill()
            with cluster[1].api() as api:
                view = api.view("v")
                for i in range(remora.scale(300, 1000)):
                    api.write(view, f"f{i}", b"x" * (i * 13 % 5000))
                    api.commit(view)
            expected = contents(cluster[1], "v")
            cluster[3].start()
            self.assertEqual(contents(cluster[3], "v"), expected)

    def test_kill_anyone_at_any_moment(self):
        """Writers on all three nodes; one node at a time is killed and restarted. What was acknowledged is there at the end."""
        seconds = remora.scale(20, 120)
        with remora.Cluster(3) as cluster:
            create(cluster)
            acknowledged = [{} for _ in cluster.nodes]

            def writer(stop, i):
                rng, node, n = random.Random(i), cluster.nodes[i], 0
                while not stop.is_set():
                    try:
                        with node.api() as api:
                            view = api.view("v", label=f"writer-{i}")
                            while not stop.is_set():
                                data = rng.randbytes(rng.choice([10, 1000, 70000, 1500000]))
                                for at in range(0, len(data), 1 << 20):
                                    api.call("fs.write", view=view, path=f"w{i}-{n % 40}", offset=at, data=data[at : at + (1 << 20)], create=True)
                                api.call("fs.set", view=view, path=f"w{i}-{n % 40}", size=len(data))
                                pending = (f"w{i}-{n % 40}", data)
                                api.commit(view)
                                acknowledged[i][pending[0]] = data
                                n += 1
                    except (OSError, ConnectionError, remora.ApiError) as e:
                        if isinstance(e, remora.ApiError) and e.symbol not in ("UNAVAILABLE", "INDETERMINATE", "BUSY", "NOTFOUND"):
                            raise
                        # A commit that was cut off may have happened: the file may be the newer one.
                        acknowledged[i].pop(f"w{i}-{n % 40}", None)
                        n += 1
                        time.sleep(0.05)

            rng, end = random.Random(7), time.monotonic() + seconds
            with remora.Threads(*(lambda stop, i=i: writer(stop, i) for i in range(3))) as writers:
                while time.monotonic() < end and not writers.problems:
                    victim = cluster.nodes[rng.randrange(3)]
                    time.sleep(rng.uniform(0.2, 1.5))
                    victim.kill()
                    time.sleep(rng.uniform(0, 1))
                    victim.start()
            wait_settled(cluster)
            found = contents(cluster[rng.randrange(3) + 1], "v")
            total = 0
            for i in range(3):
                for name, data in acknowledged[i].items():
                    self.assertEqual(found.get(name), data, f"{name} was acknowledged")
                    total += 1
            self.assertGreater(total, 10)
            for node in cluster.nodes:
                here = contents(node, "v")
                self.assertEqual([name for name in found.keys() | here.keys() if here.get(name) != found.get(name)], [], node.name)

    def test_everything_killed_at_once(self):
        with remora.Cluster(3) as cluster:
            create(cluster)
            with cluster[2].api() as api:
                view = api.view("v")
                for i in range(7):
                    api.write(view, f"f{i}", b"%d" % i)
                    api.commit(view)
                    if i == 3:
                        for node in cluster.nodes:
                            node.process.kill()
                        for node in cluster.nodes:
                            node.process.wait()
                        for node in cluster.nodes:
                            node.start(wait=False)
                        for node in cluster.nodes:
                            node.wait_ready()
                        api.close()
                        api = cluster[2].api()
                        view = api.view("v")
                api.close()
            self.assertEqual(contents(cluster[1], "v"), {f"f{i}": b"%d" % i for i in range(7)})


class Majority(unittest.TestCase):
    def test_without_a_majority_nothing_happens_and_nothing_is_lost(self):
        with remora.Cluster(3) as cluster:
            create(cluster)
            with cluster[1].api() as api:
                view = api.view("v", label="work")
                api.write(view, "before", b"1")
                api.commit(view)
                cluster[2].kill()
                cluster[3].kill()
                api.write(view, "draft", b"kept")
                for call in (lambda: api.commit(view, timeout_ms=2000), lambda: api.reload(view, timeout_ms=2000)):
                    began = time.monotonic()
                    with self.assertRaises(remora.ApiError) as e:
                        call()
                    self.assertEqual(e.exception.symbol, "UNAVAILABLE")
                    self.assertLess(time.monotonic() - began, 10 * remora.SLOW)
                self.assertEqual(api.read(view, "draft"), b"kept")
                cluster[1].cli("reload", "v", "--timeout", "2", check=3)
                cluster[1].cli("ls", "v", "--timeout", "2", check=3)
                self.assertIn(b"before", cluster[1].cli("ls", "--local", "v").stdout)
                cluster[3].start()
                api.commit(view)
            self.assertEqual(contents(cluster[3], "v"), {"before": b"1", "draft": b"kept"})

    def test_a_killed_writer_finishes_its_commit_after_the_restart_and_only_once(self):
        """The writer dies while its commit is under way; whatever became of it, all nodes agree, and committing again is one version."""
        with remora.Cluster(3) as cluster:
            create(cluster)
            for i in range(remora.scale(6, 30)):
                with cluster[1].api() as api:
                    view = api.view("v", label="work")
                    api.write(view, f"f{i}", b"%d" % i)
                    api.send("view.commit", view=view)
                    time.sleep(random.Random(i).uniform(0, 0.02))
                    cluster[1].kill()
                cluster[1].start()
                with cluster[1].api() as api:
                    view = api.view("v", label="work")
                    api.commit(view)
                    for node in cluster.nodes:
                        self.assertEqual(contents(node, "v").get(f"f{i}"), b"%d" % i)
                    versions = api.call("volume.history", name="v", path=f"f{i}")["versions"]
                    self.assertEqual(len(versions), 1)


class Views(unittest.TestCase):
    def test_a_large_draft_says_how_far_it_is(self):
        """Hashing is the node's own work, before anybody is asked: the client's patience must hear of it."""
        size, block, told = remora.scale(64, 4096), os.urandom(1 << 20), []
        with remora.Cluster(1) as cluster, cluster[1].api() as api:
            api.call("volume.create", name="drafts")
            view = api.view("drafts")
            for i in range(size):
                api.call("fs.write", view=view, path="/big", offset=i << 20, data=block, create=True)
            msgid = api.send("view.commit", view=view)
            while not told or told[-1][0] != 1:
                api._receive()
                told += [message for message in api.unpacker if message[1] == msgid or message[2][0] == msgid]
        self.assertEqual(told[-1][3]["bytes"], size << 20)
        steps = [message[2][1]["steps"] for message in told[:-1] if message[2][1].get("steps")]
        self.assertEqual(steps, sorted(set(steps)))
        if remora.LONG:  # several seconds on any machine
            self.assertTrue(steps)

    def test_two_views_of_one_node_do_not_touch_each_other(self):
        with remora.Cluster(3) as cluster, cluster[1].api() as api:
            create(cluster)
            a, b = api.view("v", label="a"), api.view("v", label="b")
            api.write(a, "of-a", b"a")
            api.write(b, "of-b", b"b")
            api.commit(a)
            self.assertEqual(contents(cluster[2], "v"), {"of-a": b"a"})
            with self.assertRaises(remora.ApiError) as e:
                api.read(b, "of-a")
            self.assertEqual(e.exception.symbol, "NOTFOUND")
            api.reload(a)
            self.assertEqual(api.read(b, "of-b"), b"b")
            with self.assertRaises(remora.ApiError):
                api.read(a, "of-b")
            api.reload(b)
            self.assertEqual(api.read(b, "of-a"), b"a")
            api.commit(b)
            self.assertEqual(contents(cluster[3], "v"), {"of-a": b"a", "of-b": b"b"})

    def test_a_directory_moves_whole_whenever_its_node_is_killed(self):
        """In a view that outlives its node: after the restart the directory is here or there, with all that is in it; what is published
        meanwhile has nothing of a move that goes on."""
        files = remora.scale(2000, 20000)
        rng = random.Random(5)
        with remora.Cluster(1) as cluster:
            create(cluster)
            here, there = "a", "b"
            with cluster[1].api() as api:
                view = api.view("v", label="mover")
                for first in range(0, files, 500):
                    entries = [{"path": f"a/d{i % 7}/f{i}", "kind": "file", "data": b"%d" % i} for i in range(first, first + 500)]
                    api.call("fs.put", view=view, entries=entries, parents=True)
                api.commit(view)
                api.write(view, "a/d0/draft", b"not committed")
            for i in range(remora.scale(6, 30)):
                with cluster[1].api() as api:
                    view = api.view("v", label="mover", local=True)
                    api.send("fs.rename", view=view, **{"from": here, "to": there})
                    time.sleep(rng.uniform(0, 0.15))
                    if i % 2:
                        with cluster[1].api() as other:
                            other.commit(view)
                    cluster[1].kill()
                cluster[1].start()
                with cluster[1].api() as api:
                    view = api.view("v", label="mover", local=True)
                    names = [e["name"] for e in api.call("fs.list", view=view, path="/")["entries"]]
                    self.assertIn(names, ([here], [there]))
                    if names == [there]:
                        here, there = there, here
                    self.assertEqual(api.read(view, f"{here}/d0/draft"), b"not committed")
                    api.call("fs.copy", view=view, **{"from": here, "to": "count", "recursive": True})
                    self.assertEqual(api.call("fs.remove", view=view, path="count", recursive=True)["count"], files + 1 + 7 + 1)
                    public = api.view("v", read_only=True)
                    self.assertEqual(len(api.call("fs.list", view=public, path="/")["entries"]), 1)
            with cluster[1].api() as api:  # whatever was cut off, the view works on
                view = api.view("v", label="mover")
                api.call("fs.rename", view=view, **{"from": here, "to": "end"})
                api.commit(view)
                public = api.view("v", read_only=True)
                self.assertEqual([e["name"] for e in api.call("fs.list", view=public, path="/")["entries"]], ["end"])
                self.assertEqual(api.read(public, "end/d3/f10"), b"10")

    def test_a_large_commit_is_seen_whole_or_not_at_all(self):
        files = remora.scale(5000, 50000) // remora.SLOW
        with remora.Cluster(3) as cluster:
            create(cluster)
            seen, slowest = set(), [0.0]

            def reader(stop):
                with cluster[3].api() as api:
                    view = api.view("v", read_only=True)
                    while not stop.is_set():
                        api.reload(view)
                        total, after = 0, None
                        while True:
                            page = api.call("fs.list", view=view, path="/", limit=1000, **({"after": after} if after else {}))
                            total += len(page["entries"])
                            if not page["more"]:
                                break
                            after = page["entries"][-1]["name"]
                        seen.add(total)

            def pinger(stop):
                while not stop.is_set():
                    with cluster[1].api() as api:
                        began = time.monotonic()
                        api.call("node.info")
                        slowest[0] = max(slowest[0], time.monotonic() - began)
                    time.sleep(0.005)

            with cluster[1].api() as api:
                view = api.view("v")
                for start in range(0, files, 500):
                    api.call("fs.put", view=view, entries=[{"path": f"f{i:06d}", "kind": "file", "data": b"%d" % i}
                                                            for i in range(start, min(files, start + 500))])
                with remora.Threads(reader, pinger) as beside:
                    api.commit(view)
                    deadline = time.monotonic() + remora.READY_S
                    while files not in seen and not beside.problems:
                        self.assertLess(time.monotonic(), deadline, f"the reader saw {seen}")
                        time.sleep(0.02)
            self.assertLessEqual(seen, {0, files})
            print(f"commit of {files} files: slowest other call {slowest[0] * 1000:.0f} ms")
            self.assertEqual(len(contents(cluster[2], "v")), files)


if __name__ == "__main__":
    unittest.main(verbosity=2)
