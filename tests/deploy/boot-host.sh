#!/bin/sh
# Boots a Debian as a host of its own: systemd as process 1, its own processes, mounts, name and cgroups; the network is
# the machine's. Run by tests/deploy/hosts.py in new namespaces: boot-host.sh NAME LOWER FOLDER SYS SHARED PIP [WHEELS...]
# FOLDER: what is written on top of LOWER. SYS: what is /sys there. SHARED: what is /shared on every host.
set -eu
name=$1 lower=$2 folder=$3 sys=$4 shared=$5 pip=$6
shift 6
root=$folder/root
mkdir -p "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$root"

mount -t proc proc "$root/proc"
# The kernel's settings are the machine's: no host changes them.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$sys" "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mkdir -p "$root/shared"
mount --bind "$shared" "$root/shared"
for place in "$pip:/var/cache/pip" "$@"; do
  mkdir -p "$root${place#*:}"
  mount --bind "${place%%:*}" "$root${place#*:}"
done

hostname "$name"
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
