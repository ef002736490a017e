"""The tests' own promise: a node that a sanitizer reported, or that crashed, fails its test, and nothing outlives a test."""
import contextlib
import io
import os
import signal
import unittest

import remora

SAYS = 'echo "$REPORT" >&2; exec "$0" "$@"'  # a node whose log has a line more
BESIDE = '"$0" "$@" & wait'  # a node below another process


def alone(directory, **options):
    return remora.Node(directory, "single", remora.free_ports(1)[0], [], **options)


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Harness(unittest.TestCase):
    def fails(self, words, use, **options):
        """The test of a node that is used like this fails, saying the words, and leaves nothing."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(AssertionError):
            with remora.scratch() as directory:
                node = alone(directory, **options)
                use(node)
        self.assertIn(words, said.getvalue())
        self.assertFalse(exists(node.process.pid))
        self.assertFalse(os.path.exists(directory))

    def test_a_report_fails_the_test(self):
        for report in ("WARNING: ThreadSanitizer: data race (pid=1)", "==1==ERROR: AddressSanitizer: heap-use-after-free",
                       "==1==ERROR: LeakSanitizer: detected memory leaks", "x.c:1:2: runtime error: signed integer overflow"):
            with self.subTest(report):
                self.fails(report, lambda node: node.start(prefix=["sh", "-c", SAYS]), environment={"REPORT": report})

    def test_a_report_before_a_restart_fails_it_too(self):
        def use(node):
            node.start(prefix=["sh", "-c", SAYS])
            node.kill()
            node.start()
            node.kill()
        self.fails("x.c:1:2: runtime error: ", use, environment={"REPORT": "x.c:1:2: runtime error: shift"})

    def test_a_crash_fails_it(self):
        def use(node):
            node.start()
            node.process.send_signal(signal.SIGABRT)
            node.process.wait()
        self.fails("SIGABRT", use)

    def test_a_report_of_the_command_line_fails_it(self):
        with self.assertRaises(AssertionError), remora.scratch() as directory:
            program = os.path.join(directory, "program")
            with open(program, "w") as f:
                f.write("#!/bin/sh\necho 'WARNING: ThreadSanitizer: data race' >&2\nexit 66\n")
            os.chmod(program, 0o700)
            kept, remora.REMORA = remora.REMORA, program
            try:
                remora.run("ls", "v")
            finally:
                remora.REMORA = kept

    def test_a_problem_of_a_thread_is_the_tests(self):
        def breaks(_):
            raise ValueError("on purpose")
        with self.assertRaises(ValueError), remora.Threads(breaks):
            pass

    def test_nothing_outlives_a_failed_test(self):
        with self.assertRaisesRegex(ValueError, "on purpose"):
            with remora.scratch() as directory:
                node = alone(directory).start(prefix=["sh", "-c", BESIDE])
                with node.api() as api:
                    pid = api.call("node.info")["pid"]
                self.assertNotEqual(pid, node.process.pid)
                raise ValueError("on purpose")
        self.assertFalse(exists(pid))
        self.assertFalse(os.path.exists(directory))


if __name__ == "__main__":
    unittest.main(verbosity=2)
