#!/usr/bin/python3
"""A first look at speed: each piece of work beside its yardstick, alternately in one run; medians and ratios are printed, nothing is asserted.

    REMORA=build/release/node/remora python3 tests/bench/first_look.py [--pairs N] [--size MIB] [--directory DIR]

The directory holds the nodes' data and the files: name a tmpfs (/dev/shm) to leave the disk out, or a disk to have it in. A ratio is
Remora's time over the yardstick's: 1.0 is as fast, 2.0 takes twice as long."""
import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import remora
import tree


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pairs(name, n, ours, yardstick, what, unit=None):
    """ours(i) and yardstick(i) in turn; unit: (amount, name) of one run, for a rate."""
    a, b = [], []
    for i in range(n):
        a.append(timed(lambda: ours(i)))
        b.append(timed(lambda: yardstick(i)))
    mine, other = statistics.median(a), statistics.median(b)
    ratio = statistics.median(x / y for x, y in zip(a, b))
    rate = f"  {unit[0] / mine:10.1f} {unit[1]}" if unit else ""
    print(f"{name:44} {mine * 1000:10.2f} ms  {what:34} {other * 1000:10.2f} ms  ratio {ratio:7.2f}{rate}", flush=True)


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))]


def copy(source, target):
    subprocess.run(["cp", "--reflink=never", "-r", source, target], check=True)


def append_and_sync(path, times):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    out = []
    for _ in range(times):
        out.append(timed(lambda: (os.write(fd, b"x" * 4096), os.fdatasync(fd))))
    os.close(fd)
    return out


def large_file(cluster, single, n, size):
    rng = random.Random(1)
    base = cluster.directory
    sources = []
    for i in range(n):
        sources.append(os.path.join(base, f"large{i}"))
        tree.write_file(sources[i], size, rng)
    unit = (size / (1 << 20), "MiB/s")
    for node, name in ((single, "one voter"), (cluster[1], "three voters")):
        node.cli("volume", "create", "large")
        pairs(f"put {size >> 20} MiB, {name}", n, lambda i: node.cli("put", "large", sources[i], f"/f{i}"),
              lambda i: copy(sources[i], os.path.join(base, f"copy{i}")), "cp", unit)
        for i in range(n):
            os.unlink(os.path.join(base, f"copy{i}"))
    digest = lambda i: subprocess.run(["openssl", "dgst", "-sha256", sources[i]], check=True, capture_output=True)
    pairs(f"get {size >> 20} MiB from the own node", n, lambda i: cluster[1].cli("get", "large", f"/f{i}", os.path.join(base, f"own{i}")),
          lambda i: copy(sources[i], os.path.join(base, f"copy{i}")), "cp", unit)
    cache = cluster.add("bench-cache").start()
    cache.wait_cluster()
    pairs(f"get {size >> 20} MiB from others, cold cache", n, lambda i: cache.cli("get", "large", f"/f{i}", os.path.join(base, f"far{i}")),
          digest, "openssl dgst -sha256", unit)


def small_commits(cluster, single, n):
    for node, name in ((single, "one voter"), (cluster[1], "three voters")):
        with node.api() as api:
            api.call("volume.create", name="small")
            view = api.view("small")
            ours, raw = [], []
            for i in range(n):
                api.write(view, f"f{i % 100}", b"x" * 100)
                ours.append(timed(lambda: api.commit(view)))
                raw += append_and_sync(os.path.join(cluster.directory, "raw"), 1)
        print(f"{'small commit, ' + name:44} p50 {percentile(ours, .5) * 1000:.2f} ms, p99 {percentile(ours, .99) * 1000:.2f} ms; "
              f"4 KiB append + fdatasync p50 {percentile(raw, .5) * 1000:.3f} ms; ratio of p50 {percentile(ours, .5) / percentile(raw, .5):.1f}, "
              f"of p99 to p50 {percentile(ours, .99) / percentile(raw, .5):.1f}", flush=True)


def visible(cluster, n):
    with cluster[1].api() as writer, cluster[3].api() as reader:
        w, r, times = writer.view("small"), reader.view("small"), []
        for i in range(n):
            writer.write(w, "seen", b"%d" % i)
            writer.commit(w)
            times.append(timed(lambda: reader.reload(r)))
            assert reader.read(r, "seen") == b"%d" % i
    print(f"{'reload on another node after a commit':44} p50 {percentile(times, .5) * 1000:.2f} ms, p99 {percentile(times, .99) * 1000:.2f} ms", flush=True)


def small_files(cluster, single, n, files):
    rng = random.Random(2)
    source = os.path.join(cluster.directory, "files")
    os.makedirs(source)
    for i in range(files):
        os.makedirs(os.path.join(source, f"d{i // 500}"), exist_ok=True)
        tree.write_file(os.path.join(source, f"d{i // 500}", f"f{i}"), 4096, rng)
    for node, name in ((single, "one voter"), (cluster[1], "three voters")):
        node.cli("volume", "create", "files")
        pairs(f"put {files} files of 4 KiB, {name}", n, lambda i: node.cli("put", "files", source, f"/t{i}"),
              lambda i: copy(source, os.path.join(cluster.directory, f"copy-of-files{i}")), "cp -r", (files, "files/s"))
        for i in range(n):
            shutil.rmtree(os.path.join(cluster.directory, f"copy-of-files{i}"))
    pairs(f"get {files} files of 4 KiB on another node", n, lambda i: cluster[3].cli("get", "files", f"/t{i}", os.path.join(cluster.directory, f"got{i}")),
          lambda i: copy(source, os.path.join(cluster.directory, f"copy-of-files{i}")), "cp -r", (files, "files/s"))
    for i in range(n):
        shutil.rmtree(os.path.join(cluster.directory, f"got{i}"))
        shutil.rmtree(os.path.join(cluster.directory, f"copy-of-files{i}"))


def bad_handshakes(cluster, n):
    """Commits with and without somebody who knocks a hundred times a second with the wrong key."""
    import socket
    import threading
    stop = threading.Event()

    def knock():
        while not stop.is_set():
            with socket.socket() as s:
                try:
                    s.settimeout(0.2)
                    s.connect(("127.0.0.1", cluster[1].port))
                    s.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47) + b"\x04\xc8\x05HELLO" + os.urandom(194))
                    s.recv(100)
                except OSError:
                    pass
            time.sleep(0.008)

    with cluster[1].api() as api:
        view, times = api.view("small"), {False: [], True: []}
        for round_ in range(6):
            knocking = round_ % 2 == 1
            stop.clear()
            thread = threading.Thread(target=knock) if knocking else None
            if thread:
                thread.start()
            for i in range(n // 6):
                api.write(view, f"k{i % 10}", b"x")
                times[knocking].append(timed(lambda: api.commit(view)))
            stop.set()
            if thread:
                thread.join()
    quiet, loud = percentile(times[False], .5), percentile(times[True], .5)
    print(f"{'small commit under bad handshakes':44} p50 {loud * 1000:.2f} ms, quiet {quiet * 1000:.2f} ms, ratio {loud / quiet:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="of the large file, in MiB")
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--commits", type=int, default=600)
    parser.add_argument("--directory", default="/dev/shm")
    options = parser.parse_args()
    tempfile.tempdir = options.directory
    print(f"data in {options.directory}, {options.pairs} pairs, {os.cpu_count()} processors")
    with remora.Cluster(3) as cluster:
        single = remora.Node(cluster.directory, "single", remora.free_ports(1)[0], [])
        cluster.nodes.append(single)
        single.start()
        small_commits(cluster, single, options.commits)
        visible(cluster, options.commits // 2)
        bad_handshakes(cluster, options.commits)
        small_files(cluster, single, min(options.pairs, 3), options.files)
        large_file(cluster, single, options.pairs, options.size << 20)


if __name__ == "__main__":
    main()
