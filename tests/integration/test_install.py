"""What is installed is enough: a program outside of this tree finds header, library and pkg-config file, and speaks to a node."""
import os
import subprocess
import tempfile
import unittest

import remora

BUILD = os.path.dirname(os.path.dirname(os.path.abspath(remora.REMORA)))

PROGRAM = """
#include <remora/remora.h>
#include <stdio.h>

/* Names that a program may have of its own. */
int frame_init(void) { return 0; }
int replica_buffer_init(void) { return 0; }

int main(int argc, char **argv)
{
    struct remora *remora;
    struct remora_view view;
    struct remora_commit commit;
    char *message, data[8] = "";
    size_t n;
    if (argc != 2 || remora_connect(argv[1], 10000, &remora, &message) != 0)
        return 1;
    if (remora_volume_create(remora, "v", 0, REMORA_IF_MISSING) != 0 ||
        remora_view_open(remora, "v", NULL, NULL, 0, &view) != 0 ||
        remora_write(remora, &view, "step", 0, "42", 2, true) != 0 || remora_commit(remora, &view, &commit) != 0 ||
        remora_read(remora, &view, "step", 0, data, sizeof data - 1, &n) != 0) {
        fprintf(stderr, "%s: %s\\n", remora_error_symbol(remora), remora_error(remora));
        return 1;
    }
    printf("%s %d\\n", data, remora_mkdir(remora, &view, "step", 0755, false) == REMORA_E_EXISTS);
    remora_commit_free(&commit);
    remora_close(&remora);
    return 0;
}
"""


class Install(unittest.TestCase):
    def test_a_program_builds_against_what_was_installed(self):
        with tempfile.TemporaryDirectory(prefix="remora-test-") as at:
            prefix = os.path.join(at, "staged")
            subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, capture_output=True)
            moved = os.path.join(at, "moved here")  # an image is assembled in one place and used in another
            os.rename(prefix, moved)
            pc = [os.path.join(d, "") for d, _, files in os.walk(moved) if "remora-client.pc" in files]
            self.assertEqual(len(pc), 1)
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "remora-client"], env={**os.environ, "PKG_CONFIG_PATH": pc[0]},
                                   check=True, capture_output=True, text=True).stdout.strip()
            # Other warnings and another standard than ours; a C++ compiler takes the header, too.
            source = os.path.join(at, "app.c")
            with open(source, "w", encoding="ascii") as f:
                f.write(PROGRAM)
            sanitize = f"-fsanitize={self.sanitizers()}" if self.sanitizers() else ""
            subprocess.run(f"cc -std=c99 -Wall -Wextra -Wpedantic -Werror {sanitize} -o app app.c {flags}", shell=True, cwd=at, check=True)
            subprocess.run(f"echo '#include <remora/remora.h>' | c++ -Wall -Wextra -Werror -x c++ -fsyntax-only {flags} -", shell=True,
                           cwd=at, check=True)
            installed = os.path.join(moved, "bin", "remora")
            self.assertIn("remora ", subprocess.run([installed, "--version"], check=True, capture_output=True, text=True).stdout)
            with remora.Alone() as node:
                out = subprocess.run([os.path.join(at, "app"), node.socket], check=True, capture_output=True, text=True).stdout
                self.assertEqual(out, "42 1\n")
                self.assertEqual(node.cli("cat", "v", "step").stdout, b"42")

    def sanitizers(self):
        with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as cache:
            return next((line.split("=", 1)[1].strip() for line in cache if line.startswith("REMORA_SANITIZE:")), "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
