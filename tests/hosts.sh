#!/bin/bash
# Several "hosts" on one machine, as root: network, UTS, IPC, PID and mount namespaces, joined by two switches.
#   hosts.sh able           exit 77 where such hosts cannot be made (no root, no tools, no veth): skip then
#   hosts.sh up [N]         hosts h0 (login node, in the PIDs of this machine) and h1..hN; `. <(hosts.sh env)` for mpiexec
#   hosts.sh exec HOST CMD  a command on a host; `rsh HOST CMD` is what mpiexec -launcher-exec calls
#   hosts.sh cut|heal HOST  its cables out, in;   hosts.sh kill HOST  power off: every process of it
#   hosts.sh disturb HOST [OPTIONS]  delay and loss on its cables, as `tc netem` takes them; without options none
#   hosts.sh ip HOST WORDS  what `ip` does to its network, such as `addr flush dev ib0`
#   hosts.sh own HOST FOLDER  hide the folder from the others: HOST has an empty one of its own there
#   hosts.sh ps             the processes of h1..hN;   hosts.sh down   remove all
# eth0 is 10.77.0.(10+i)/24, ib0 10.78.0.(10+i)/24, and mgmt0 10.79.i.1/24, on which nobody hears anybody.
# Nothing leads out of it: the switches are in a namespace of their own.
set -euo pipefail
dir=${SCDASK_HOSTS:?a folder of your own, such as $(mktemp -d)/hosts} self=$(readlink -f "$0")
tag=$(printf %s "$dir" | cksum | cut -c1-5)  # so that two sets of hosts do not meet
ns() { echo "sc$tag-$1"; }

able() {
    [ "$(id -u)" = 0 ] || { echo "not root"; exit 77; }
    for tool in ip unshare nsenter; do command -v $tool >/dev/null || { echo "no $tool"; exit 77; }; done
    ip netns add "$(ns try)" 2>/dev/null || { echo "no network namespaces"; exit 77; }
    trap 'ip netns del "$(ns try)"' EXIT
    ip -n "$(ns try)" link add try0 type veth peer name try1 2>/dev/null || { echo "no veth"; exit 77; }
    ip -n "$(ns try)" link add try2 type bridge 2>/dev/null || { echo "no bridge"; exit 77; }
    unshare --uts --ipc --mount --pid --fork true 2>/dev/null || { echo "no namespaces"; exit 77; }
}

host() {  # make one: name, number
    local n; n=$(ns "$1")
    ip netns add "$n"
    ip -n "$n" link set lo up
    local net
    for net in eth0:77 ib0:78; do
        ip -n "$n" link add "${net%:*}" type veth peer name "${net%:*}-$1" netns "$(ns switch)"
        ip -n "$(ns switch)" link set "${net%:*}-$1" master "br${net#*:}" up
        ip -n "$n" addr add "10.${net#*:}.0.$((10 + $2))/24" dev "${net%:*}"
        ip -n "$n" link set "${net%:*}" up
    done
    ip -n "$n" link add mgmt0 type bridge
    ip -n "$n" addr add "10.79.$2.1/24" dev mgmt0
    ip -n "$n" link set mgmt0 up
    ip -n "$n" route add default via 10.77.0.254  # which nobody has
    local pid=--pid; [ "$2" = 0 ] && pid=
    # shellcheck disable=SC2086
    setsid ip netns exec "$n" unshare --uts --ipc $pid --mount --fork --kill-child "$self" init "$1" "$2" </dev/null >/dev/null 2>&1 &
    local unshare=$! child=
    while [ ! -e "$dir/$1.up" ]; do sleep 0.02; done
    # `ip netns exec` becomes unshare, whose child is the init of the host
    child=$(cat "/proc/$unshare/task/$unshare/children")
    echo "${child// /}" >"$dir/$1.pid"
}

init() {  # in the namespaces of a host
    hostname "$1"
    [ "$2" = 0 ] || mount -t proc proc /proc
    mount -t tmpfs -o size=2g tmpfs /dev/shm
    cp "$dir/hosts" "$dir/hosts-$1"
    mount --bind "$dir/hosts-$1" /etc/hosts
    echo "options timeout:1 attempts:1" >"$dir/resolv.conf"
    mount --bind "$dir/resolv.conf" /etc/resolv.conf
    cat /proc/sys/kernel/random/uuid >"$dir/boot_id-$1"
    mount --bind "$dir/boot_id-$1" /proc/sys/kernel/random/boot_id  # another machine has another
    touch "$dir/$1.up"
    exec env --ignore-signal=CHLD sleep infinity  # reaps its orphans
}

up() {
    able; trap - EXIT; ip netns del "$(ns try)"
    mkdir -p "$dir"
    ip netns add "$(ns switch)"
    for br in br77 br78; do ip -n "$(ns switch)" link add $br type bridge; ip -n "$(ns switch)" link set $br up; done
    echo "127.0.0.1 localhost" >"$dir/hosts"
    for i in $(seq 0 "${1:-3}"); do printf '10.77.0.%d h%d\n10.78.0.%d h%d-ib0\n' $((10 + i)) "$i" $((10 + i)) "$i" >>"$dir/hosts"; done
    for i in $(seq 0 "${1:-3}"); do host "h$i" "$i"; done
    printf '#!/bin/bash\nexport SCDASK_HOSTS=%q\nexec %q rsh "$@"\n' "$dir" "$self" >"$dir/rsh"
    chmod +x "$dir/rsh"
}

on() {  # a command on a host
    local target; target=$(cat "$dir/$1.pid"); shift
    exec nsenter -t "$target" --net --uts --ipc --mount --pid --wdns="$PWD" -- "$@"
}

down() {
    for pid in "$dir"/h*.pid; do [ -e "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null || true; done
    for name in $(ip netns list | cut -d' ' -f1 | grep "^sc$tag-" || true); do ip netns del "$name"; done
    rm -rf "$dir"
}

ps_all() {
    for pid in "$dir"/h[1-9]*.pid; do
        local name; name=$(basename "$pid" .pid)
        [ -e "/proc/$(cat "$pid")" ] || { echo "$name: off"; continue; }
        "$self" exec "$name" ps -ww -e -o pid=,ppid=,stat=,etimes=,args= | grep -vE "sleep infinity|ps -ww -e -o" | sed "s/^/$name: /" || true
    done
}

case ${1:-} in
    able) able ;;
    up) up "${2:-3}" ;;
    init) init "$2" "$3" ;;
    exec) shift; on "$@" ;;
    rsh) shift; while [ "${1#-}" != "$1" ]; do shift; done; name=$1; shift; on "$name" /bin/sh -c "$*" ;;
    cut) for net in eth0 ib0; do ip -n "$(ns "$2")" link set $net down; done ;;
    heal) for net in eth0 ib0; do ip -n "$(ns "$2")" link set $net up; done; ip -n "$(ns "$2")" route replace default via 10.77.0.254 ;;
    kill) kill -9 "$(cat "$dir/$2.pid")" ;;
    disturb)
        for net in eth0 ib0; do
            tc -n "$(ns "$2")" qdisc del dev $net root 2>/dev/null || true
            [ $# = 2 ] || tc -n "$(ns "$2")" qdisc add dev $net root netem "${@:3}"
        done ;;
    ip) ip -n "$(ns "$2")" "${@:3}" ;;
    own) "$self" exec "$2" mount -t tmpfs tmpfs "$3" ;;
    env) echo "export HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$dir/rsh" ;;
    ps) ps_all ;;
    down) down ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$self"; exit 2 ;;
esac
