#!/usr/bin/env bash
# Installs what is missing of the Debian 12 / Ubuntu 24.04 packages that Octant needs, and says what it does.
#   deploy/packages.sh           to build and run
#   deploy/packages.sh --tests   what the tests need beside that
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config python3 unzip ca-certificates
  libopenmpi-dev openmpi-bin openssh-client libgrpc-dev protobuf-compiler libprotobuf-c-dev protobuf-c-compiler
  libmicrohttpd-dev libcurl4-openssl-dev libedit-dev libjansson-dev libpcre2-dev libutf8proc-dev libyaml-dev libssl-dev libsqlite3-dev python3-pip)
# libclang-rt: libFuzzer and the sanitizers; llvm: names the lines in their reports; nftables, tcpdump: what leaves is denied and seen;
# ccache: a second check on a machine compiles only what has changed.
tests=(ccache clang llvm libclang-rt-dev libcmocka-dev python3-venv curl procps iproute2 git nftables tcpdump)

wanted=("${build[@]}")
[ "${1:-}" != --tests ] || wanted+=("${tests[@]}")

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "packages.sh: no apt-get here; install by hand: ${missing[*]}" >&2
  exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "packages.sh: run as root, or install sudo; missing: ${missing[*]}" >&2; exit 1; }
  root=(sudo)
fi
echo "installing ${#missing[@]} packages: ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# apt ends with this shell; where dpkg is at work by then, it lets that finish, and the next apt waits for it. An install that was
# interrupted all the same is finished first.
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive setpriv --pdeathsig TERM apt-get -q -o DPkg::Lock::Timeout=300)
install() { "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; }
repair() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a; }
if ! { "${apt[@]}" update && { install || { repair && install; }; }; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "packages.sh: apt-get failed; its last lines are above" >&2
  exit 1
fi
