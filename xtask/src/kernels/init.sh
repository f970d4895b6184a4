#!/bin/sh
# First process of a machine that `cargo xtask kernels` boots: mounts what a host has, runs the check, powers off.
export PATH=/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
chmod 1777 /tmp /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
hostname kernels
ip link set lo up
# What the server's own log is compared with has to be there whole: no console of the kernel between its lines.
dmesg -n 1
/opt/pgwitness-truth kernels --json >/run/figures
echo "pgwitness-truth ended with $?"
dmesg | grep -E 'BUG:|WARNING:|Oops|Out of memory|segfault' | tail -n 20
echo "figures: $(tail -n 1 /run/figures)"
poweroff -f
