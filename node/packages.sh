# The Debian packages that Remora needs, in one place: sourced by node/quickstart.sh and tests/run.sh. Not a program of its own.
BUILD_PACKAGES="build-essential cmake ninja-build pkg-config libzmq3-dev libczmq-dev libmsgpack-dev libleveldb-dev libsodium-dev libssl-dev libsystemd-dev libcmocka-dev"
TEST_PACKAGES="clang clang-format strace attr python3 python3-msgpack gcovr libfaketime"

# install_packages NAME…: installs those that are missing; asks for more rights only then.
install_packages() {
    missing=
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "These packages (as Debian 12 calls them) are missing, and there is no apt-get to install them:$missing" >&2
        return 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "These packages are missing; install them as root, then run this again: apt-get install$missing" >&2
            return 1
        fi
        as_root=sudo
    fi
    echo "Installing packages:$missing"
    # shellcheck disable=SC2086 # words on purpose
    $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}
