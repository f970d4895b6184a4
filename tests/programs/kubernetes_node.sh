#!/bin/sh
# The first process of a node, in namespaces of its own for mounts and networks: gives the node folders where its programs
# look for them, and settings of the kernel that it finds as it wants them, so that it changes none of the machine's.
# $1: a folder for all of it; $2: the node's cgroup (version 2). When the input ends, so does everything of the node.
set -e
folder=$1
group=$2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# What is mounted from here on is the node's alone; within the node it is shared, as Kubernetes wants it.
mount --make-rprivate /
for place in run var/lib var/log; do
    mkdir -p "$folder/layers/$place/upper" "$folder/layers/$place/work"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$folder/layers/$place/upper,workdir=$folder/layers/$place/work" "/$place"
done
# Layers of images cannot lie on a layer.
for place in containerd kubelet; do
    mkdir -p "$folder/$place" "/var/lib/$place"
    mount --bind "$folder/$place" "/var/lib/$place"
done
# What the kubelet sets on every host where it is not set yet: of the whole kernel, not of a namespace.
while read -r name value; do
    mkdir -p "$folder/sysctl"
    echo "$value" >"$folder/sysctl/${name##*/}"
    mount --bind "$folder/sysctl/${name##*/}" "/proc/sys/$name"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready
cat >/dev/null
echo 1 >"$group/cgroup.kill"
