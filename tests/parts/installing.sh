# shellcheck shell=bash
# Debian packages, builds that happen once, and npm packages. Sourced after lib.sh by the install scripts, here and in ../vm.
: "${cache:?}"

export DEBIAN_FRONTEND=noninteractive

# --- Debian packages ---

debian_packages() { # PACKAGE…: installs those that are missing, and leaves none of their services running
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_root "install the Debian packages ${missing[*]}"
  log "installing the Debian packages ${missing[*]} (some seconds)"
  # Where that fails, there are no package lists yet, or they are old.
  without_services apt_get install --yes --no-install-recommends "${missing[@]}" 2>/dev/null || {
    apt_get update
    without_services apt_get install --yes --no-install-recommends "${missing[@]}"
  }
  # Nor may they start with the machine from now on.
  if [ -d /run/systemd/system ]; then
    for package in "${missing[@]}"; do
      case $package in etcd-server) package=etcd ;; esac
      systemctl disable --quiet --now "$package" 2>/dev/null || true
    done
  fi
}

apt_get() {
  quietly apt-get -qq -o DPkg::Lock::Timeout=120 "$@"
}

quietly() { # COMMAND…: the end of its output is shown if it fails
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -n 20 "$log" >&2
  rm -f "$log"
  return "$status"
}

without_services() ( # COMMAND…: with Debian's own switch against the start of services, unless the machine has set it
  switch=/usr/sbin/policy-rc.d
  if [ ! -e "$switch" ]; then
    trap 'rm -f "$switch"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$switch"
    chmod +x "$switch"
  fi
  "$@"
)

need_root() { # TO DO WHAT
  [ "$(id -u)" = 0 ] || fail "only root can $1: run $0 as root, or install them yourself"
}

packages_of_missing() { # PROGRAM=PACKAGE…: the packages of those programs that are missing
  local pair
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || printf '%s\n' "${pair#*=}"
  done
}

# --- into the cache ---

# Of two builds of one thing at a time, one waits for the other and finds it done.
locked() { # NAME COMMAND…
  mkdir -p "$cache"
  (
    if ! flock --nonblock 9; then
      log "waiting for another build of $1"
      flock 9
    fi
    # What a build that was cut off has left; its lock is ours now.
    rm -rf --one-file-system "$cache"/"$1".building.*
    shift
    "$@"
  ) 9>"$cache/$1.lock"
}

took() { log "$1: done in $SECONDS s"; }

# --- npm packages ---

npm_quietly() { # ARGUMENT…: packages run no scripts of their own
  quietly npm "$@" --ignore-scripts --no-audit --no-fund --omit-lockfile-registry-resolved
}

npm_folder() { # DIR
  printf '%s/npm-%s\n' "$cache" "$(cat "$1/package.json" "$1/package-lock.json" | digest)"
}

npm_packages() { # DIR: what its lock pins, once into the cache, and linked from DIR, where editors and programs find it
  local target
  locked npm build_npm "$1"
  target=$(npm_folder "$1")/node_modules
  [ "$(readlink "$1/node_modules" || true)" = "$target" ] || ln -sfn "$target" "$1/node_modules"
}

build_npm() { # DIR
  local folder building
  folder=$(npm_folder "$1")
  [ ! -d "$folder" ] || return 0
  log "installing the packages of $1/package.json (some seconds, once)"
  building=$(mktemp -d "$cache/npm.building.XXXXXX")
  cp "$1/package.json" "$1/package-lock.json" "$building/"
  (cd "$building" && npm_quietly ci)
  mv -T "$building" "$folder"
}
