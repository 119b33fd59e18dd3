# shellcheck shell=bash
# Starting the processes of a set and waiting for them. Sourced after set.sh by up and nodes-up, which give
# $directory (the set's folder), $processes (a JSON array) and write_set, which puts both into the set's file.

: "${parts:?}" "${directory=}" "${processes=}"

# shellcheck disable=SC2064 # the command is meant to be set now
on_signals() { # COMMAND
  trap "$1 129" HUP
  trap "$1 130" INT
  trap "$1 143" TERM
}
deferred=''
defer() { deferred=$1; }

listens() { { : <"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null; } # PORT

ports_taken=''
free_port() { # into $port: unused, and below the ephemeral range
  while true; do
    port=$((20000 + RANDOM % 12000))
    case $ports_taken in *" $port "*) continue ;; esac
    listens "$port" || break
  done
  ports_taken+=" $port "
}

start() { # NAME DIR PORT ARGUMENT…: runs serve-NAME with these in the background, in a session of its own
  local name=$1 data=$2 port=$3 pid
  shift
  on_signals defer # a process that has begun is written down first
  setsid "$parts/serve-$name" "$@" </dev/null >"$directory/$name.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  processes=$(jq --arg name "$name" --argjson pid "$pid" --argjson start_time "$(start_time "$pid" || echo 0)" \
    --arg directory "$data" --argjson port "$port" --arg log "$directory/$name.log" \
    '. + [{name: $name, pid: $pid, start_time: $start_time, directory: $directory, port: $port, log: $log}]' <<<"$processes")
  write_set
  on_signals exit
  [ -z "$deferred" ] || exit "$deferred"
}

gone_or() { gone "$1" "$2" || "${@:3}"; } # PID START COMMAND…

wait_for() { # SECONDS NAME COMMAND…: until the part of that name answers
  local seconds=$1 name=$2 pid began
  shift 2
  read -r pid began < <(jq -r --arg name "$name" '.[] | select(.name == $name) | "\(.pid) \(.start_time)"' <<<"$processes")
  until_true "$seconds" gone_or "$pid" "$began" "$@" && alive "$pid" "$began" && return
  log "the last lines of $name's log:"
  tail -n 15 "$directory/$name.log" | cut -c 1-400 >&2
  if alive "$pid" "$began"; then
    fail "$name did not answer within $seconds s"
  else
    fail "$name exited"
  fi
}

answers() { curl --silent --fail --max-time 2 --noproxy '*' --output /dev/null "$@"; }
