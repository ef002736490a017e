"""kill -9 cannot show a missing fsync, a trace of system calls can. A voter whose acks the commits need is traced, and every sync is made
to take long: a commit may return only after the voter's contents, their directory and the log, in this order, were synced."""
import os
import random
import re
import shutil
import signal
import time
import unittest

import remora

DELAY_US = 60_000  # that every sync takes longer, so that an early ack cannot go unnoticed
LINE = re.compile(r"^(\d+)\s+(\d+\.\d+) (\w+)\((\d+)<([^>]*)>.*(?:= (-?\d+)|<unfinished \.\.\.>)")
RESUMED = re.compile(r"^(\d+)\s+(\d+\.\d+) <\.\.\. (\w+) resumed>.*= (-?\d+)")
OPEN = re.compile(r'^(\d+)\s+(\d+\.\d+) openat\(.*= \d+<([^>]*)>')


def completed_syncs(path):
    """(time of completion, path) of every fsync, fdatasync and syncfs that succeeded."""
    pending, out = {}, []
    with open(path, errors="replace") as trace:
        lines = trace.readlines()
    for line in lines:
        if m := RESUMED.match(line):
            if (m[1], m[3]) in pending and m[4] == "0":
                out.append((float(m[2]), pending.pop((m[1], m[3]))))
        elif m := LINE.match(line):
            if m[3] not in ("fsync", "fdatasync"):
                continue
            if m[6] is None:
                pending[m[1], m[3]] = m[5]
            elif m[6] == "0":
                out.append((float(m[2]) + DELAY_US / 1e6, m[5]))  # the time stamp is of the call, the delay comes before its end
    return out


@unittest.skipIf(shutil.which("strace") is None, "needs strace")
class Durability(unittest.TestCase):
    def test_an_ack_follows_the_sync_of_contents_directory_and_log(self):
        with remora.Cluster(3) as cluster:
            with cluster[1].api() as api:
                api.call("volume.create", name="v")
                view = api.view("v")
                api.write(view, "first", b"1")
                api.commit(view)
            cluster[3].kill()
            cluster[2].stop()
            trace = os.path.join(cluster.directory, "trace")
            cluster[2].start(prefix=["strace", "-f", "-y", "-ttt", "-s", "0", "-o", trace, "-e", "trace=fsync,fdatasync,openat", "-e",
                                     f"inject=fsync,fdatasync:delay_exit={DELAY_US}"])
            commits = []
            with cluster[1].api() as api:
                view = api.view("v")
                rng = random.Random(1)
                for i in range(12):
                    size = [100, 20_000, 200_000, 3_000_000][i % 4]  # in the record, carried or packed, whole files
                    api.call("fs.write", view=view, path=f"f{i}", offset=0, data=rng.randbytes(min(size, 1 << 20)), create=True)
                    if size > 1 << 20:
                        api.call("fs.write", view=view, path=f"f{i}", offset=1 << 20, data=rng.randbytes(1 << 20))
                    began = time.time()
                    api.commit(view)
                    commits.append((began, time.time(), size))
                    time.sleep(0.3)
            with cluster[2].api() as api:
                os.kill(api.call("node.info")["pid"], signal.SIGTERM)  # strace itself would let go of it
            cluster[2].process.wait(60)
            syncs = completed_syncs(trace)
            for began, returned, size in commits:
                within = [(t, p) for t, p in syncs if began < t <= returned + 0.005]
                logs = [t for t, p in within if "/log/" in p and p.endswith(".log")]
                self.assertTrue(logs, f"a commit of {size} bytes returned before the voter's log was synced: {within}")
                if size > remora_packed_max():
                    files = [t for t, p in within if "/whole/" in p or "/partial/" in p]
                    directories = [t for t, p in within if re.search(r"/whole(/..)?$", p)]
                    self.assertTrue(files, f"… before the voter's content was: {within}")
                    self.assertTrue(directories, f"… before the directory of the content was: {within}")
                    self.assertLess(min(files), max(logs))
                    self.assertLess(min(directories), max(logs))
                elif size > 256:
                    packs = [t for t, p in within if p.endswith(".pack")]
                    self.assertTrue(packs, f"… before the voter's pack was: {within}")
                    self.assertLess(min(packs), max(logs))


def remora_packed_max():
    return 64 * 1024


if __name__ == "__main__":
    unittest.main(verbosity=2)
