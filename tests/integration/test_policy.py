"""Other users of the machine at a node's socket: what a rule lets them do, and that nothing else is."""
import os
import shutil
import subprocess
import unittest

from remora import REMORA, Api, ApiError, Cluster

STRANGER = 54321
GROUP = 54322


@unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
class Policy(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(1, arguments=["--allow", f"uid:{STRANGER}=logs,weights:ro gid:{GROUP}=weights:ro"])
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.node = self.cluster[1]
        os.chmod(self.cluster.directory, 0o755)
        self.program = shutil.copy(REMORA, self.cluster.directory)  # where the build lies may be closed to others
        for volume in "weights", "logs", "secret":
            self.node.cli("volume", "create", volume)
            self.node.cli("put", volume, "-", "/file", input=volume.encode())

    def cli(self, *arguments, user=STRANGER, group=STRANGER, check=0, **options):
        result = subprocess.run([self.program, *arguments], env={**os.environ, "REMORA_SOCKET": self.node.socket}, cwd="/",
                                user=user, group=group, extra_groups=[], capture_output=True, check=False, **options)
        self.assertEqual(result.returncode, check, (arguments, result.stderr))
        return result

    def connect_as_stranger(self):
        """The kernel tells the node who connected, whoever that is later."""
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(STRANGER)
        os.seteuid(STRANGER)
        try:
            return Api(self.node.socket)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    def test_each_may_what_a_rule_says(self):
        self.assertEqual(self.cli("cat", "weights", "/file").stdout, b"weights")
        self.assertEqual(self.cli("cat", "logs", "/file").stdout, b"logs")
        self.cli("put", "logs", "-", "/mine", input=b"mine")
        self.assertEqual(self.node.cli("cat", "logs", "/mine").stdout, b"mine")
        self.assertEqual(self.cli("cat", "weights", "/file", user=STRANGER + 9, group=GROUP).stdout, b"weights")
        names = self.cli("volume", "list").stdout.decode()
        self.assertIn("weights", names)
        self.assertNotIn("secret", names)
        self.assertNotIn("secret", self.cli("cluster", "status").stdout.decode())

    def test_nothing_else(self):
        for arguments in (("cat", "secret", "/file"), ("ls", "secret"), ("log", "secret"), ("volume", "info", "secret"),
                          ("cat", "nowhere", "/file"), ("put", "weights", "-", "/new"), ("rm", "weights", "/file"),
                          ("volume", "create", "another"), ("volume", "rename", "-y", "logs", "mine"),
                          ("volume", "delete", "-y", "logs"), ("cluster", "init")):
            said = self.cli(*arguments, check=7, input=b"x").stderr.decode()
            self.assertTrue(said.strip(), arguments)
        self.assertIn("54321", self.cli("cat", "secret", "/file", check=7).stderr.decode())
        self.cli("put", "logs", "-", "/new", user=STRANGER + 9, group=GROUP, check=7, input=b"x")
        self.cli("volume", "list", user=STRANGER + 9, group=STRANGER + 9, check=7)
        self.assertEqual(self.node.cli("cat", "weights", "/file").stdout, b"weights")

    def test_views_are_their_makers(self):
        """A labelled view of another user is neither seen nor touched, though its volume is allowed."""
        with self.node.api() as own:
            view = own.view("logs", label="shared")
            own.write(view, "/draft", b"not yet")
            own.view("logs", label="reading", read_only=True)
            with self.connect_as_stranger() as api:
                self.assertEqual(api.call("view.list")["views"], [])
                for method, wanted, params in (("fs.read", "NOTFOUND", {"view": view, "path": "/draft", "offset": 0, "length": 9}),
                                               ("view.commit", "NOTFOUND", {"view": view}),
                                               ("view.open", "DENIED", {"volume": "logs", "label": "shared"}),
                                               ("view.open", "DENIED", {"volume": "weights", "label": "mine"})):
                    with self.assertRaises(ApiError) as said:
                        api.call(method, **params)
                    self.assertEqual(said.exception.symbol, wanted, method)
            own.commit(view)
            own.call("view.close", view=view)

    def test_without_rules_nobody_else_connects(self):
        with Cluster(1) as plain:
            os.chmod(plain.directory, 0o755)
            os.chmod(plain[1].socket, 0o666)  # even then
            self.node = plain[1]
            self.cli("volume", "list", check=7)


if __name__ == "__main__":
    unittest.main(verbosity=2)
