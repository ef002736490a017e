#!/bin/sh
# Remora's main job, before your eyes: sh node/quickstart.sh [PATH] [--keep]
#
# Builds Remora and runs three nodes on this machine, in a temporary directory, over loopback only. What PATH holds (by default a tree of
# some hundred files that is made here) goes into a volume on node 1 and comes out on node 3; a node is killed, work goes on, the node
# comes back and catches up. Everything is stopped and removed at the end, unless --keep is given.
set -eu

path=
keep=no
for argument; do
    case $argument in
    --keep) keep=yes ;;
    -h | --help)
        sed -n 's/^# \{0,1\}//; 2,6p' "$0"
        exit 0
        ;;
    -*)
        echo "usage: sh node/quickstart.sh [PATH] [--keep]" >&2
        exit 2
        ;;
    *) path=$argument ;;
    esac
done
if [ -n "$path" ]; then
    [ -e "$path" ] || {
        echo "$path: No such file or directory" >&2
        exit 1
    }
    path=$(readlink -f "$path")
fi
cd "$(dirname "$0")/.."

step() {
    printf '\n\033[1m%s\033[0m\n' "$*"
}
[ -t 1 ] || step() {
    printf '\n== %s\n' "$*"
}
fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    exit 1
}

step "Packages and build"
. ./node/packages.sh
# shellcheck disable=SC2086 # words on purpose
install_packages $BUILD_PACKAGES
directory=$(mktemp -d "${TMPDIR:-/tmp}/remora-quickstart-XXXXXX")
pid1= pid2= pid3=

# Our own nodes only, by their process ids.
tidy_up() {
    status=$?
    trap - EXIT INT TERM
    if [ "$keep" = yes ] && [ "$status" = 0 ]; then
        exit 0
    fi
    [ "$status" = 0 ] || for log in "$directory"/node*.log; do
        [ ! -f "$log" ] || { echo "--- the end of $log" && tail -n 15 "$log"; } >&2
    done
    for pid in $pid1 $pid2 $pid3; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in $pid1 $pid2 $pid3; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$directory"
    exit "$status"
}
trap tidy_up EXIT
trap 'exit 130' INT TERM

echo "Building; this takes a minute or two the first time."
cmake --preset release >"$directory/build.log" 2>&1 && cmake --build --preset release --target remora >>"$directory/build.log" 2>&1 || {
    tail -n 40 "$directory/build.log" >&2
    fail "the build failed; these are the last lines of it"
}
remora=$PWD/build/release/node/remora
"$remora" --version

# Three pairs of ports (control, data) that nobody listens on.
listening() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf '%04X' "$1") [0-9A-F]*:[0-9A-F]* 0A"
}
ports=
port=$((20000 + $$ % 5000 * 2))
while [ "$(echo "$ports" | wc -w)" -lt 3 ]; do
    if ! listening "$port" && ! listening $((port + 1)); then
        ports="$ports $port"
    fi
    port=$((port + 2))
done
# shellcheck disable=SC2086 # words on purpose
set -- $ports
join=tcp://127.0.0.1:$1,tcp://127.0.0.1:$2,tcp://127.0.0.1:$3

# start N PORT: node N, in the background; its process id in pidN.
start() {
    "$remora" node --name "node$1" --data "$directory/data$1" --socket "$directory/node$1.sock" --listen "tcp://127.0.0.1:$2" \
        --key "$directory/key" --expect 3 --join "$join" --vote >>"$directory/node$1.log" 2>&1 &
    eval "pid$1=$!"
}
# on N VERB …: a verb on node N.
on() {
    node=$1
    shift
    "$remora" "$@" --socket "$directory/node$node.sock"
}

step "A cluster of three nodes, with a fresh key, in $directory"
"$remora" keygen "$directory/key"
start 1 "$1"
start 2 "$2"
start 3 "$3"
for node in 1 2 3; do
    on $node wait --timeout 60
done
on 1 cluster status --wait --timeout 60 >/dev/null
on 1 cluster members

step "A volume: a directory tree that all three keep"
on 1 volume create demo
for node in 2 3; do
    on $node wait --volume demo --timeout 60
done
on 1 volume info demo

if [ -z "$path" ]; then
    step "Something to put in: a tree of some hundred files, one of them of 120 MiB"
    path=$directory/tree
    mkdir -p "$path/empty"
    i=0
    while [ $i -lt 300 ]; do
        d=$path/part$((i % 7))
        mkdir -p "$d"
        head -c $((i * i % 70000)) /dev/urandom >"$d/file$i"
        i=$((i + 1))
    done
    head -c $((120 * 1024 * 1024)) /dev/urandom >"$path/large.bin"
    truncate -s 30M "$path/sparse.bin"
    chmod 600 "$path/part1/file1"
    ln -s part1/file1 "$path/link"
    ln "$path/part2/file2" "$path/another-name"
    mkfifo "$path/fifo"
    touch -d '2020-02-02 02:02:02.123456789' "$path/part3/file3" "$path/part3"
fi
name=$(basename "$path")
[ "$name" != / ] || name=root

# Every entry of a tree with its kind, mode, size, time and link target, in order; owners too, which only root can keep.
owner=
[ "$(id -u)" != 0 ] || owner=%U:%G
describe() {
    [ -d "$1" ] || {
        find "$1" -printf "%y %m $owner %s %T@\n"
        return
    }
    (cd "$1" && find . ! -type d -printf "%P %y %m $owner %s %T@ %l\n" -o -type d -printf "%P %y %m $owner - %T@\n" | LC_ALL=C sort)
}
# compare A B: two trees (or files), in bytes and metadata. diff can only say of fifos and devices that they are such; their kinds are
# compared with the metadata.
compare() {
    LC_ALL=C diff -r --no-dereference "$1" "$2" | grep -vE ' is a (fifo|socket|character special file|block special file) while ' >&2 &&
        fail "$2 has other bytes than $1"
    describe "$1" >"$directory/expected"
    describe "$2" >"$directory/actual"
    diff "$directory/expected" "$directory/actual" >&2 || fail "$2 has other metadata than $1"
}

step "Put on node 1: $path"
on 1 put demo "$path" "/$name"

step "Got on node 3, which fetches what it lacks from the others and verifies it"
on 3 get demo "/$name" "$directory/got"
compare "$path" "$directory/got"
echo "Byte for byte the same, and so are modes, owners, times and links."

if [ -d "$path" ]; then
    step "Checked out on node 3: ordinary files, for any program that reads"
    on 3 checkout "demo:/$name" "$directory/checkout"
    compare "$path" "$(readlink -f "$directory/checkout")"
    echo "The same again, at $directory/checkout."
fi

step "Node 2 is killed with SIGKILL; two of three go on"
kill -9 "$pid2"
wait "$pid2" 2>/dev/null || true
echo "written while node 2 was down" | on 1 put demo - /while-down
on 3 cat demo /while-down

step "Node 2 comes back and catches up"
start 2 "$2"
on 2 wait --volume demo --timeout 60
on 2 cat demo /while-down
[ "$(on 2 cat demo /while-down)" = "written while node 2 was down" ] || fail "node 2 did not catch up"
on 1 cluster status --wait --timeout 60
on 2 get demo "/$name" "$directory/got-on-2" --quiet
compare "$path" "$directory/got-on-2"
echo "Node 2 has everything, the old and the new."

if [ "$keep" = yes ]; then
    step "The cluster keeps running"
    cat <<END
  export REMORA_SOCKET=$directory/node1.sock     (node2.sock, node3.sock: the other nodes)
  export PATH=$PWD/build/release/node:\$PATH
  remora ls -l demo
  remora put demo FILE /      remora get demo /FILE
  remora log demo             remora cluster status
Logs are in $directory/node*.log. Stop it all, and remove it:
  kill $pid1 $pid2 $pid3; sleep 1; rm -rf $directory
END
else
    step "Done: everything is stopped and removed. With --keep the cluster stays, to try things out."
fi
