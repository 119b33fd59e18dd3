# shellcheck shell=bash
# What up, down and with-parts know of a set of running parts: one JSON file, and the folder that it names.
# Sourced after lib.sh.

: "${parts:?}"

# shellcheck source=nodes.sh
. "$parts/nodes.sh"

# A folder without it is not ours to remove.
set_marker=.sentinel-parts

# set_file FILE: its absolute path, or the default one; makes its folder.
set_file() {
  local path=${1:-$sets/parts.json} parent
  parent=$(folder "$(dirname "$path")")
  printf '%s/%s\n' "$parent" "$(basename "$path")"
}

# lock_set FILE: one up or down at a time for a file. Held (fd 9) until this script ends; children close it.
lock_set() {
  exec 9>"$1.lock"
  flock --timeout 180 9 || fail "another up or down has been busy with $1 for three minutes"
}

# set_processes FILE: a line for each: name, pid, start time, data folder.
set_processes() {
  jq -r '.processes[] | "\(.name) \(.pid) \(.start_time) \(.directory)"' "$1"
}

# edit_set FILE JQ-FILTER [JQ-OPTION…]
edit_set() {
  (umask 077 && jq "${@:3}" "$2" "$1" >"$1.new")
  mv "$1.new" "$1"
}

# set_is_living FILE: is all of it running, and does it use the same servers from outside as the environment names now?
set_is_living() {
  local name pid start
  [ -f "$1" ] && [ "$(jq -r .state "$1" 2>/dev/null)" = up ] || return 1
  jq -e --arg redis "${REDIS_URL:-}" --arg mongodb "${MONGODB_URI:-}" '
    def uses($name; $field; $outside): if $outside == "" then any(.processes[]; .name == $name) else .[$field] == $outside end;
    uses("redis"; "redis_url"; $redis) and uses("ferretdb"; "mongodb_uri"; $mongodb)' "$1" >/dev/null || {
    log "$1 does not use the stores that REDIS_URL and MONGODB_URI now ask for; starting afresh"
    return 1
  }
  while read -r name pid start _; do
    alive "$pid" "$start" || {
      log "$name (pid $pid) of $1 is gone; starting afresh"
      return 1
    }
  done < <(set_processes "$1")
}

# stop_set FILE: stops exactly the processes that it names, waits for their end, and removes their data and the file.
# The data is removed with them, so no clean shutdown is needed.
stop_set() {
  local name pid start data directory
  [ -f "$1" ] || return 0
  directory=$(jq -r .directory "$1") || fail "$1 cannot be read, so nothing was stopped: remove it, and what it started, by hand"
  if [ "$(jq '.network != null' "$1")" = true ]; then
    remove_nodes "$1" || fail "the nodes of $1 are not all removed"
  fi
  # In this order, so that no process loses a peer that it depends on.
  while read -r name pid start data; do
    alive "$pid" "$start" || continue
    case $name in
      # It takes its backends along.
      postgres) kill -QUIT "$pid" && kill -CONT "$pid" ;;
      *) kill -KILL "$pid" ;;
    esac 2>/dev/null || true
  done < <(set_processes "$1" | tac)
  while read -r name pid start data; do
    until_true 10 gone "$pid" "$start" || {
      kill -KILL "$pid" 2>/dev/null || true
      until_true 10 gone "$pid" "$start" || fail "$name (pid $pid) does not end"
    }
    # The children of a killed postmaster exit on their own.
    [ "$name" != postgres ] || until_true 15 idle "$data/data" || fail "process $(working_in "$data/data") still works on $data/data"
  done < <(set_processes "$1")
  if [ -f "$directory/$set_marker" ]; then rm -rf --one-file-system "$directory"; fi
  rm -f "$1" "$1.new"
}
