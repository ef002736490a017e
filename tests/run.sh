#!/bin/sh
# Sets up this machine and passes all tests: sh tests/run.sh [PRESET …]
#
#   presets        dev, asan and coverage by default, in this order: every test in the plain build, then again under the address and
#                  undefined-behaviour sanitizers, then unit tests and simulations for the line coverage of replica and gossip, which is
#                  printed. Others: tsan (as asan, with the thread sanitizer), release, fuzz (each fuzz target for a little while)
#   REMORA_TEST_TRIES=2  a test that failed may try again (its first failure is printed all the same); 1 by default
#   REMORA_TEST_LONG=1   the sizes and times that the project promises instead of smaller ones of the same shape (about two hours)
set -eu
cd "$(dirname "$0")/.."
. ./node/packages.sh
install_packages $BUILD_PACKAGES $TEST_PACKAGES

again="--repeat until-pass:${REMORA_TEST_TRIES:-1}"
[ $# -gt 0 ] || set -- dev asan coverage
sh tests/format.sh
for preset; do
    echo "=== $preset"
    cmake --preset "$preset"
    cmake --build --preset "$preset"
    case $preset in
    coverage)
        ctest --test-dir "build/$preset" --output-on-failure $again -j2 -L 'unit|sim'
        gcovr -r . --object-directory "build/$preset" --filter 'replica/src' --filter 'gossip/src' --print-summary --fail-under-line 90
        ;;
    fuzz) ctest --test-dir "build/$preset" --output-on-failure $again -R '^fuzz\.' ;;
    *) ctest --test-dir "build/$preset" --output-on-failure $again -j2 ;;
    esac
done
