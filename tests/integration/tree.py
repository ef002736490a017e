"""Trees of files of every kind, made from a seed, and their comparison."""
import os
import random
import socket
import stat

BLOCK = 1 << 20


def write_file(path, size, rng):
    with open(path, "wb") as f:
        left = size
        while left > 0:
            n = min(left, BLOCK)
            f.write(rng.randbytes(n))
            left -= n


def make_sparse(path, rng):
    """Data, a hole over several chunks, data."""
    with open(path, "wb") as f:
        f.write(rng.randbytes(100_000))
        f.seek(9 * BLOCK + 12345)
        f.write(rng.randbytes(50_000))
        f.truncate(20 * BLOCK + 7)


def size_of(i, rng):
    """Mixed: empty, tiny (in the entry), small (in a pack), around every threshold, some large."""
    edges = [0, 1, 255, 256, 257, 4095, 4096, 65535, 65536, 65537, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]
    if i < len(edges):
        return edges[i]
    return rng.choice([0, rng.randrange(1, 256), rng.randrange(256, 4096), rng.randrange(256, 4096), rng.randrange(4096, 60000)])


def make_tree(root, files, seed=1, as_root=os.geteuid() == 0):
    rng = random.Random(seed)
    os.makedirs(root)
    per_directory = 100
    for i in range(files):
        directory = os.path.join(root, f"d{i // per_directory % 10}", f"sub{i // per_directory}")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"file-{i:05d}")
        write_file(path, size_of(i, rng), rng)
        os.chmod(path, rng.choice([0o644, 0o600, 0o755, 0o444, 0o4755]))
        os.utime(path, ns=(1_500_000_000_123_456_789 + i, 1_500_000_000_123_456_789 + i * 1000))
    special = os.path.join(root, "special")
    os.makedirs(os.path.join(special, "empty"))
    names = ["space in name", "ünïcode-名前", "-leading-dash", "new\nline", "x" * 255, "back\\slash", "#hash%percent"]
    for name in names:
        write_file(os.path.join(special, name), 1000, rng)
    os.symlink("file-that-is-missing", os.path.join(special, "dangling"))
    os.symlink("../d0", os.path.join(special, "to-directory"))
    os.symlink("a" * 4000, os.path.join(special, "long-target"))
    write_file(os.path.join(special, "linked"), 100_000, rng)
    os.link(os.path.join(special, "linked"), os.path.join(special, "linked-too"))
    os.link(os.path.join(special, "linked"), os.path.join(root, "d0", "linked-elsewhere"))
    os.mkfifo(os.path.join(special, "fifo"), 0o640)
    s = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(special)
    s.bind("socket")
    os.chdir(here)
    s.close()
    if as_root:
        os.mknod(os.path.join(special, "char"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(os.path.join(special, "block"), stat.S_IFBLK | 0o600, os.makedev(7, 250))
        os.chown(os.path.join(special, "space in name"), 12345, 54321)
        os.chown(os.path.join(special, "dangling"), 1001, 1002, follow_symlinks=False)
    make_sparse(os.path.join(special, "sparse"), rng)
    os.setxattr(os.path.join(special, "linked"), "user.colour", b"blue\x00\xff")
    os.setxattr(os.path.join(special, "empty"), "user.of-a-directory", b"yes")
    os.chmod(os.path.join(special, "empty"), 0o1777)
    for directory, _, _ in os.walk(root, topdown=False):
        os.utime(directory, ns=(1_400_000_000_987_654_321, 1_400_000_000_987_654_321))


def describe(root, modes=True):
    """path → everything that must survive, contents by a hash; hard links by the first path of their inode."""
    import hashlib
    seen, out = {}, {}
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]) + ([""] if directory == root else []):
            path = os.path.join(directory, name) if name else root
            info = os.lstat(path)
            key = os.path.relpath(path, root)
            item = {"kind": stat.S_IFMT(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
            if modes:
                item["mode"] = stat.S_IMODE(info.st_mode)
            if not stat.S_ISLNK(info.st_mode):
                item["xattrs"] = {x: os.getxattr(path, x, follow_symlinks=False) for x in os.listxattr(path, follow_symlinks=False)}
            item["mtime"] = info.st_mtime_ns
            if stat.S_ISREG(info.st_mode):
                digest = hashlib.sha256()
                with open(path, "rb") as f:
                    while data := f.read(BLOCK):
                        digest.update(data)
                item["size"], item["sha256"] = info.st_size, digest.hexdigest()
                if info.st_nlink > 1:
                    item["link"] = min(seen.setdefault(info.st_ino, key), key)
            elif stat.S_ISLNK(info.st_mode):
                item["target"] = os.readlink(path)
            elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                item["device"] = info.st_rdev
            out[key] = item
    return out


def is_sparse(path):
    info = os.lstat(path)
    return info.st_blocks * 512 < info.st_size


def assert_same(test, expected, actual, ignore=()):
    for name in ignore:
        for tree in (expected, actual):
            for item in tree.values():
                item.pop(name, None)
    test.assertEqual(sorted(expected), sorted(actual))
    for path, item in expected.items():
        test.assertEqual(item, actual[path], f"differs: {path!r}")
