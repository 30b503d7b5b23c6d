#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Brings what the build needs. On Debian 12 missing packages are installed (as root, or through sudo where that asks nothing); elsewhere the
# script only names what is missing. Nothing is fetched and nothing is written when all is there.
#
#   scripts/deps.sh [fuzz] [format] [mpi]    also what `make fuzz` and `make format` need, or MPI (100 MB) for `mpirun soma fast fit`
set -eu
cd "$(dirname "$0")/.."

# DuckDB is not in Debian 12: its library is part of one npm package, its C header of another, both of this version.
duckdb_version=1.4.4
duckdb_header="duckdb@1.4.4"
duckdb_header_sha512=844249e61c9517454b8f776638ba6c5ab411d1bddde1892ab72826ea25178c72430e74aa83f5122b171be6abcdace84560f824b5ac94e9d5c2b603ea7269a9a2
case "$(uname -m)" in
x86_64)
    duckdb_library="@duckdb/node-bindings-linux-x64@1.4.4-r.3"
    duckdb_library_sha512=679f73a5421c662947066719a66c1f1708bafce0272a5550084f7f3468190854aa61e6fede28f91d0cb6ea1a75d06222bf71f151018877c1d5b3ddb1da3bdc91
    ;;
aarch64)
    duckdb_library="@duckdb/node-bindings-linux-arm64@1.4.4-r.3"
    duckdb_library_sha512=a85dbf5a107e8bef22b3ad11ae94d8ff9667cb02146b2b818955d2b90e2bad19f59b582f7caa8fbe3c926e20e3620428ffa397bbf7dac74282d605e7356a0b10
    ;;
*) duckdb_library= ;;
esac

say() { printf 'deps: %s\n' "$*"; }
fail() {
    printf 'deps: %s\n' "$*" >&2
    exit 1
}

# ---- what is needed: Debian's package, how to see that it is there, what it is for

header() { printf '#include <%s>\n' "$1" | cc -E -x c - >/dev/null 2>&1; }
library() { printf 'int main(void) { return 0; }\n' | cc -x c - -o /dev/null "-l$1" >/dev/null 2>&1; }
has() { # kind name
    case $1 in
    command) command -v "$2" >/dev/null 2>&1 ;;
    module) pkg-config --exists "$2" 2>/dev/null ;;
    header) header "$2" ;;
    library) library "$2" ;;
    file) for match in $2; do [ -e "$match" ] && return 0; done; return 1 ;;
    esac
}

debian=no
if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091
    [ "$(. /etc/os-release; printf '%s-%s' "${ID:-}" "${VERSION_ID:-}")" = debian-12 ] && debian=yes
fi

missing= packages= no_env= no_hdf5= no_masks=
need() { # package kind name purpose
    has "$2" "$3" && return 0
    packages="$packages $1"
    missing="$missing
  $3 ($2; Debian: $1): $4"
}
simulator() { # the same for what env/ alone needs: elsewhere than on Debian the build goes on without it
    has "$2" "$3" && return 0
    packages="$packages $1"
    no_env="$no_env
  $3 ($2; Debian: $1): $4"
}

need gcc command cc "the C compiler"
need g++ command c++ "the C++ compiler, for the SentencePiece shim and a test of the headers"
need cmake command cmake "the build"
need ninja-build command ninja "the build"
need pkg-config command pkg-config "to find libraries"
need libjansson-dev module jansson "JSON"
need libsentencepiece-dev module sentencepiece "tokenizers"
need libutf8proc-dev module libutf8proc "tokenizers"
need libavformat-dev module libavformat "video"
need libavcodec-dev module libavcodec "video"
need libavutil-dev module libavutil "video"
need libswscale-dev module libswscale "video"
need libwebsockets-dev module libwebsockets "the server"
need libmsgpack-dev module msgpack "the server's messages"
need libpng-dev module libpng "pictures"
need libjpeg-dev module libjpeg "pictures"
need libcairo2-dev module cairo "plots"
need libcmocka-dev module cmocka "tests"
simulator libmujoco-dev header mujoco/mujoco.h "the simulator"
simulator libmujoco-dev library mujoco "the simulator"
simulator libegl-dev library EGL "rendering without a screen"
simulator libgl-dev library GL "rendering without a screen"
simulator libosmesa6-dev header GL/osmesa.h "rendering in software"
simulator libosmesa6-dev library OSMesa "rendering in software"
has module hdf5-serial || has module hdf5 || { packages="$packages libhdf5-dev" no_hdf5=yes; }
[ $debian = no ] || simulator libgl1-mesa-dri file "/usr/lib/*/dri/swrast_dri.so" "the software renderer behind EGL"
# tests of instruction sets that this machine lacks, or is to lack: NEON, and x86-64 without AVX-512 and AVX
if [ "$(uname -m)" = x86_64 ]; then
    has command aarch64-linux-gnu-gcc || { packages="$packages gcc-aarch64-linux-gnu" no_masks=yes; }
    has file /usr/aarch64-linux-gnu/lib/libc.a || { packages="$packages libc6-dev-arm64-cross" no_masks=yes; }
    has command qemu-aarch64 || { packages="$packages qemu-user" no_masks=yes; }
fi
for extra in "$@"; do
    case $extra in
    fuzz)
        need clang command clang "fuzz targets"
        need libclang-rt-14-dev file "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a" "fuzz targets"
        ;;
    format) need clang-format command clang-format "make format" ;;
    mpi)
        need libopenmpi-dev module ompi-c "MPI"
        need openmpi-bin command mpirun "MPI"
        ;;
    *) fail "\"$extra\" is not known here: fuzz, format and mpi are" ;;
    esac
done

# ---- DuckDB

duckdb_there() {
    [ -f .deps/duckdb/libduckdb.so ] && [ -f .deps/duckdb/duckdb.h ] && [ "$(cat .deps/duckdb/version 2>/dev/null)" = "$duckdb_version" ] && return 0
    header duckdb.h && library duckdb
}

# The tarball of an npm package into the current folder, held against its checksum.
fetch() { # name@version sha512 file
    tarball=$(npm pack --loglevel=error --no-update-notifier "$1") || fail "npm could not fetch $1 (its reason stands above)"
    printf '%s  %s\n' "$2" "$tarball" | sha512sum --check --status || fail "$1: the checksum differs from the one in scripts/deps.sh; nothing was installed"
    mv "$tarball" "$3"
}

# Files are moved into place one by one, the version last: an interrupted run is repeated by the next one, and programs that run keep the
# library that they opened.
install_duckdb() {
    [ -n "$duckdb_library" ] || fail "DuckDB: no packaged library for $(uname -m); install libduckdb and duckdb.h where the compiler finds them"
    mkdir -p .deps/duckdb
    part=$PWD/.deps/part-$$
    mkdir -p "$part"
    trap 'rm -rf "$part"' EXIT INT TERM
    say "fetching DuckDB $duckdb_version"
    (
        cd "$part"
        fetch "$duckdb_library" "$duckdb_library_sha512" library.tgz
        fetch "$duckdb_header" "$duckdb_header_sha512" header.tgz
        tar xzf library.tgz package/libduckdb.so package/LICENSE
        tar xzf header.tgz package/src/duckdb/src/include/duckdb.h
        printf '%s\n' "$duckdb_version" >version
    )
    rm -f .deps/duckdb/version
    mv -f "$part/package/libduckdb.so" "$part/package/LICENSE" "$part/package/src/duckdb/src/include/duckdb.h" .deps/duckdb/
    mv -f "$part/version" .deps/duckdb/
    # under `sudo make deps` the tree still belongs to the user
    [ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" .deps
}

# ---- install, or name

install_packages() {
    packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
    say "installing $packages"
    if [ "$(id -u)" = 0 ]; then as_root=env; else as_root="sudo -n env"; fi
    [ "$as_root" = env ] || sudo -n true 2>/dev/null || fail "this needs root: run \`sudo make deps\` once, or install: $packages"
    # shellcheck disable=SC2086
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -q -y update || say "the package lists could not be refreshed; trying with those that are there"
    # shellcheck disable=SC2086
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $packages ||
        fail "apt-get could not install: $packages"
}

if ! duckdb_there && [ -n "$duckdb_library" ]; then need npm command npm "to fetch DuckDB"; fi
if [ $debian = yes ]; then
    if [ -n "$packages" ]; then
        case " $packages " in *" npm "*) packages="$packages ca-certificates" ;; esac
        install_packages
    fi
else
    [ -z "$no_env" ] || say "the build goes on without env/ (no \`soma record\`, no closed-loop \`soma eval\`), because this is missing:$no_env"
    [ -z "$no_hdf5" ] || say "the build goes on without HDF5 datasets, because libhdf5 (pkg-config hdf5) is missing"
    [ -z "$no_masks" ] || say "tests of NEON and of processors without AVX will be skipped, because aarch64-linux-gnu-gcc or qemu-user is missing"
    [ -z "$missing" ] || fail "this is not Debian 12, where packages would be installed here. Missing:$missing"
fi
duckdb_there || install_duckdb
