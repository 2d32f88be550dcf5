#!/usr/bin/env bash
# Makes, once, a folder with another Debian and its Slurm in it, for devcluster.py --root.
#   make-root.sh DIR [forky|trixie]
#     forky    Slurm 26.05, and pyslurm in DIR/opt/venv (default; about 2 minutes, 1.6 GB)
#     trixie   Slurm 24.11, no pyslurm
# As root. MIRROR=URL in the environment takes another Debian mirror than this machine's own apt sources name.
set -euo pipefail

usage="usage: make-root.sh DIR [forky|trixie]"
root=${1:?$usage}
suite=${2:-forky}
pyslurm=25.11.2
here=$(cd "$(dirname "$0")" && pwd)
packages="slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins slurm-wlm-mysql-plugin munge mariadb-server"
case $suite in
  forky) packages="$packages libslurm-dev gcc libc6-dev python3-dev python3-venv" ;;
  trixie) ;;
  *) echo "$usage" >&2; exit 2 ;;
esac

fail() { echo "make-root: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run it as root (debootstrap, mount and chroot need it)"
mkdir -p "$root"
root=$(cd "$root" && pwd)
mark=$root/.devcluster-root # holds the suite and how far it came
log=$root.log
# The folder may be wiped below, so it has to be a new one or one of ours.
if [ ! -e "$mark" ] && [ -n "$(ls -A "$root")" ]; then
  fail "$root is neither empty nor made by this script; name another folder"
fi
was=$suite state=new
[ ! -e "$mark" ] || read -r was state <"$mark"
[ "$was" = "$suite" ] || fail "$root holds $was already; name another folder for $suite"
if [ "$state" = ready ]; then
  echo "$root is ready ($suite)"
  exit 0
fi

# The first Debian archive that apt has here: the deb822 form, then the one-line form.
mirror=${MIRROR:-$(sed -nE 's/^(URIs:|deb( +\[[^]]*\])?) +([^ ]+).*/\3/p' /etc/apt/sources.list.d/debian.sources \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 1p || true)}
[ -n "$mirror" ] || fail "no Debian mirror in /etc/apt; name one: MIRROR=URL make-root.sh $root $suite"

mounted=()
cleanup() {
  for point in ${mounted[@]+"${mounted[@]}"}; do umount -l "$point" || true; done
}
trap cleanup EXIT
trap 'exit 1' INT TERM
trap 'echo "make-root: stopped; the last lines of $log:" >&2; tail -n 15 "$log" >&2' ERR

: >>"$log"
if [ "$state" = new ]; then
  command -v debootstrap >/dev/null || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends debootstrap
  } >>"$log" 2>&1
  # What an interrupted run left; debootstrap may have left its own /proc and /sys as well.
  for point in proc sys; do ! mountpoint -q "$root/$point" || umount -l "$root/$point"; done
  find "$root" -xdev -mindepth 1 -delete
  echo "$suite new" >"$mark"
  # The script is named because an older debootstrap has none for a younger suite; every Debian suite uses sid's.
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" \
    /usr/share/debootstrap/scripts/sid >>"$log" 2>&1
  echo "$suite base" >"$mark"
fi

for point in proc dev; do
  mountpoint -q "$root/$point" && continue
  case $point in
    proc) mount -t proc proc "$root/proc" ;;
    dev) mount --bind /dev "$root/dev" ;;
  esac
  mounted+=("$root/$point")
done

# How this machine reaches its mirrors holds inside as well; pip's environment variables come along by themselves.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -rL /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
[ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$root/etc/"
# Nothing that is installed may start by itself: the daemons would take this machine's ports.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"

inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@" >>"$log" 2>&1; }
inside apt-get update -qq
# shellcheck disable=SC2086 # a list of words
inside apt-get install -y -qq --no-install-recommends $packages
inside apt-get clean

if [ "$suite" = forky ]; then
  rm -rf "$root/opt/pyslurm-headers"
  cp -r "$here/pyslurm-headers" "$root/opt/"
  inside python3 -m venv /opt/venv
  inside sh -c "SLURM_INCLUDE_DIR=/opt/pyslurm-headers SLURM_LIB_DIR=\$(dirname \"\$(find /usr/lib -name libslurm.so)\") \
    PYSLURM_BUILD_JOBS=\$(nproc) CFLAGS='-O0 -g0' /opt/venv/bin/pip install --no-binary pyslurm pyslurm==$pyslurm"
  # Without a slurm.conf the plain import would end the process.
  inside env PYSLURM_DISABLE_AUTO_INIT=1 /opt/venv/bin/python -c "import pyslurm; print('pyslurm', pyslurm.__version__)"
fi
echo "$suite ready" >"$mark"
echo "$root is ready: $(chroot "$root" slurmd -V)"
