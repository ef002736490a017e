#!/bin/sh
# The cores are pure (docs/architecture.md): no sockets, threads, clock, random device, environment, printing or mutable globals. This
# looks at what the two archives need from outside, at their writable data, and at the headers that their sources name.
# usage: purity.sh SOURCE_DIRECTORY libreplica.a libgossip.a
set -eu
export LC_ALL=C
source=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# Memory, strings, sorting, formatting into memory, assertions; hashing.
cat >"$work/allowed" <<'END'
EVP_Digest
EVP_DigestFinal_ex
EVP_DigestInit_ex2
EVP_DigestUpdate
EVP_MD_CTX_free
EVP_MD_CTX_new
EVP_sha256
_GLOBAL_OFFSET_TABLE_
__assert_fail
__memcpy_chk
__snprintf_chk
__stack_chk_fail
__vsnprintf_chk
abort
bsearch
calloc
free
malloc
memchr
memcmp
memcpy
memmove
memset
qsort
realloc
reallocarray
snprintf
strchr
strcmp
strlen
strncmp
strnlen
strrchr
strspn
vsnprintf
END
sort -u -o "$work/allowed" "$work/allowed"
nm -u "$@" | awk '$1 == "U" { print $2 }' | sort -u >"$work/undefined"
nm --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort -u >"$work/defined"
comm -23 "$work/undefined" "$work/defined" | comm -23 - "$work/allowed" >"$work/foreign"
if [ -s "$work/foreign" ]; then
    echo "the pure archives use what they may not:"
    sed 's/^/  /' "$work/foreign"
    failed=1
fi
[ -s "$work/defined" ] && [ -s "$work/undefined" ] || { echo "nothing was found in $*"; exit 1; }

# Tables of functions are constant, though they lie in .data.rel.ro.
objdump -t "$@" | awk '($4 == ".data" || $4 ~ /^\.data\.[^r]/ || $4 ~ /^\.bss/ || $4 == "*COM*" || $3 == ".data" || $3 ~ /^\.bss/ ||
                        $4 ~ /^\.tbss/ || $4 ~ /^\.tdata/) && $(NF - 1) !~ /^0+$/ { print }' >"$work/globals"
if [ -s "$work/globals" ]; then
    echo "the pure archives have mutable globals:"
    sed 's/^/  /' "$work/globals"
    failed=1
fi

# Headers. The LevelDB and file back ends are libraries of their own, outside the rule.
cat >"$work/headers" <<'END'
assert.h
inttypes.h
msgpack.h
openssl/evp.h
stdarg.h
stdbool.h
stddef.h
stdint.h
stdio.h
stdlib.h
string.h
END
find "$source/replica" "$source/gossip" -name '*.[ch]' ! -name 'kv_leveldb.*' ! -name 'contents_files*' -print0 |
    xargs -0 grep -HoE '^#include <[^>]*>' | sed 's/^\(.*\):#include <\(.*\)>$/\2 \1/' | sort -u >"$work/included"
[ -s "$work/included" ] || { echo "no headers were found below $source"; exit 1; }
awk 'NR == FNR { allowed[$1] = 1; next } !($1 in allowed) { print }' "$work/headers" "$work/included" >"$work/strange"
if [ -s "$work/strange" ]; then
    echo "the pure sources include what they may not:"
    sed 's/^/  /' "$work/strange"
    failed=1
fi
exit $failed
