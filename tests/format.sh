#!/bin/sh
# Every C file is formatted as .clang-format says (clang-format 14, Debian 12's).
set -eu
cd "$(dirname "$0")/.."
find node gossip replica sim tests \( -name '*.c' -o -name '*.h' \) -print0 | xargs -0 clang-format --dry-run -Werror
