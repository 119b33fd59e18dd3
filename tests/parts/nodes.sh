# shellcheck shell=bash
# What nodes-up, nodes-down, down and the node-… commands know of a set's real nodes. Sourced by set.sh, after lib.sh.
#
# Slot S (0 to 15) of the machine gives a set its bridge sentinelS with 10.200.S.1/24, and its node number N (1 to 14) the
# address 10.200.S.(10+N), the pods 10.201.(16*S+N).0/24, the link sentinelS-N and the cgroup /sentinelS/NAME.
# Who made the bridge has the slot: of two that try, the kernel lets one.

: "${parts:?}"
image_prefix=localhost

# --- of one node ---

# node_field FILE NAME FIELD: that field of the node in FILE.
node_field() {
  jq -er --arg name "$2" --arg field "$3" '.nodes[]? | select(.name == $name) | .[$field]' "$1" ||
    fail "$1 has no node '$2'; it has: $(jq -r '[.nodes[]?.name] | join(" ")' "$1")"
}

# node_is_up FILE NAME
node_is_up() {
  local pid start
  pid=$(node_field "$1" "$2" pid) && start=$(node_field "$1" "$2" start_time) && alive "$pid" "$start"
}

# node_init FILE NAME: the pid, as seen from here, of the node's own PID 1.
node_init() {
  local pid children
  node_is_up "$1" "$2" || fail "$2 is not up: boot it with $parts/node-boot $2"
  pid=$(node_field "$1" "$2" pid)
  read -r children <"/proc/$pid/task/$pid/children" || true
  [ -n "$children" ] || fail "$2 has only begun to boot, or is ending"
  printf '%s\n' "${children%% *}"
}

# in_node FILE NAME COMMAND…: runs it as a process of that node, in all of its namespaces.
in_node() (
  init=$(node_init "$1" "$2") || exit
  cgroup=$(node_field "$1" "$2" cgroup) || exit
  shift 2
  while read -r mount _; do
    place=$mount/$cgroup
    [ ! -d "$place/init" ] || place+=/init
    echo "$BASHPID" >"$place/cgroup.procs"
  done < <(cgroup_hierarchies)
  exec nsenter --target "$init" --mount --uts --ipc --pid --net --cgroup --root --wd=/ -- "$@"
)

# import_image FILE NAME ARCHIVE
import_image() {
  in_node "$1" "$2" ctr --namespace k8s.io images import --no-unpack - <"$3" >/dev/null
}

# --- cgroups ---

# cgroup_hierarchies: a line for each that the machine has: mount point, type, and what names it (v1).
cgroup_hierarchies() {
  awk '$3 == "cgroup" || $3 == "cgroup2" {
    names = ""
    split($4, options, ",")
    for (i in options)
      if (options[i] ~ /^(cpu|cpuacct|cpuset|memory|devices|freezer|blkio|pids|net_cls|net_prio|perf_event|hugetlb|rdma|misc|name=.*)$/)
        names = names (names == "" ? "" : ",") options[i]
    print $2, $3, names
  }' /proc/mounts
}

# cgroup_pids CGROUP: of the processes in it and below it.
cgroup_pids() {
  local mount
  while read -r mount _; do
    [ ! -d "$mount/$1" ] || find "$mount/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done < <(cgroup_hierarchies) | sort -u
}

cgroup_is_empty() { [ -z "$(cgroup_pids "$1")" ]; } # CGROUP

# remove_cgroup CGROUP: in every hierarchy, the innermost first. False while it is in use.
remove_cgroup() {
  local mount status=0
  while read -r mount _; do
    [ -d "$mount/$1" ] || continue
    find "$mount/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ ! -d "$mount/$1" ] || status=1
  done < <(cgroup_hierarchies)
  return "$status"
}

# --- ending ---

# cut_power FILE NAME: the link first, so that no peer receives a FIN; then, with its PID 1, all of its processes.
cut_power() {
  local pid start link cgroup
  pid=$(node_field "$1" "$2" pid) start=$(node_field "$1" "$2" start_time)
  link=$(node_field "$1" "$2" link) cgroup=$(node_field "$1" "$2" cgroup)
  ip link delete "$link" 2>/dev/null || true
  if alive "$pid" "$start"; then kill -KILL "$pid" 2>/dev/null || true; fi
  until_true 10 gone "$pid" "$start" || fail "$2 (pid $pid) does not end"
  # A node that was killed before FILE could name its process still runs: all processes of its cgroup belong to it.
  until_true 3 cgroup_is_empty "$cgroup" || cgroup_pids "$cgroup" | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
  until_true 20 cgroup_is_empty "$cgroup" || fail "processes of $2 do not end (cgroup $cgroup)"
}

# remove_nodes FILE: all that nodes-up made of the machine, and the nodes' folders. Anything else stays.
remove_nodes() {
  local name pid start directory bridge rule arguments
  while read -r name; do cut_power "$1" "$name"; done < <(jq -r '.nodes[]?.name' "$1")
  bridge=$(jq -r .network.bridge "$1") directory=$(jq -r .directory "$1")
  while read -r rule; do
    mapfile -t arguments < <(jq -r '.[]' <<<"$rule")
    # The tables may have been emptied meanwhile.
    iptables --wait --table "${arguments[0]}" --delete "${arguments[@]:1}" 2>/dev/null || true
  done < <(jq -c '.network.rules[]' "$1")
  until_true 20 remove_cgroup "$bridge" || fail "the cgroup $bridge is still in use"
  ip link delete "$bridge" 2>/dev/null || true
  [ ! -d "$directory/nodes" ] || rm -rf --one-file-system "$directory/nodes"
}

# --- beginning ---

# boot_node FILE NAME: in the background, and its process into FILE.
boot_node() {
  local directory pid
  directory=$(node_field "$1" "$2" directory)
  setsid "$parts/serve-node" "$directory" </dev/null >>"$directory/node.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  # shellcheck disable=SC2016 # jq's own
  edit_set "$1" '.nodes |= map(if .name == $name then .pid = $pid | .start_time = $start_time else . end)' \
    --arg name "$2" --argjson pid "$pid" --argjson start_time "$(start_time "$pid" || echo 0)"
}

# wait_for_node FILE NAME SECONDS: until the cluster shows it as Ready with its current boot id.
wait_for_node() {
  local log
  until_true "$3" node_is_down_or_ready "$1" "$2" && node_is_up "$1" "$2" && return
  log=$(node_field "$1" "$2" directory)
  log "$2 is not Ready; the last lines of its logs:"
  tail -n 12 "$log"/node.log "$log"/logs/*.log 2>/dev/null | cut -c 1-300 >&2
  exit 1
}

node_is_down_or_ready() { # FILE NAME
  local directory
  node_is_up "$1" "$2" || return 0
  directory=$(node_field "$1" "$2" directory)
  [ -f "$directory/boot_id" ] || return 1
  "$(program kubectl kubernetes)" --kubeconfig="$(jq -r .kubeconfig "$1")" --request-timeout=5s get node "$2" -o json 2>/dev/null |
    jq -e --arg boot_id "$(cat "$directory/boot_id")" '.status | .nodeInfo.bootID == $boot_id and
      any(.conditions[]; .type == "Ready" and .status == "True")' >/dev/null
}

# build_image ARCHIVE NAME:TAG ENTRYPOINT PATH…: of the given files and folders alone, into a docker-archive.
# ENTRYPOINT is a JSON array, or empty for none.
build_image() (
  archive=$1 image=$image_prefix/$2 entrypoint=$3
  shift 3
  store=$(mktemp -d "$archive.building.XXXXXX")
  trap 'rm -rf "$store"' EXIT
  buildah() { command buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
  {
    container=$(buildah from scratch)
    for path in "$@"; do
      if [ -d "$path" ]; then
        buildah copy --quiet "$container" "$path" /
      else
        buildah copy --quiet "$container" "$path" "/bin/$(basename "$path")"
      fi
    done
    buildah config --env PATH=/bin:/sbin:/usr/bin:/usr/sbin ${entrypoint:+--entrypoint "$entrypoint"} "$container"
    buildah commit --quiet "$container" "$image"
    buildah push --quiet "$image" "docker-archive:$archive:$image"
  } >/dev/null
)
