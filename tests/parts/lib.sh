# shellcheck shell=bash
# Functions and folders that the scripts beside this file share. Sourced, never run.

parts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SENTINEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sentinel-node}/parts
sets=${SENTINEL_PARTS_DIR:-$(cd "$parts/../.." && pwd)/target/parts}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
case $sets in /*) ;; *) sets=$PWD/$sets ;; esac

FERRETDB_VERSION=v2.7.0
COREDNS_VERSION=v1.15.0
PROMETHEUS_OPERATOR_VERSION=v0.85.0
CERT_MANAGER_VERSION=v1.21.2
POSTGRES_SUITE=${SENTINEL_POSTGRES_SUITE:-forky}

KUSTOMIZE_CONTROLLER_VERSION=v1.7.3
SOURCE_CONTROLLER_VERSION=v1.8.5

# stdout belongs to the commands that with-parts runs, so we speak on stderr.
log() { printf 'parts: %s\n' "$*" >&2; }
fail() {
  log "$*"
  exit 1
}

# --- where things are ---

kubernetes_version() {
  awk '$1 == "require" && $2 == "k8s.io/kubernetes" { print $3; exit }' "$parts/kubernetes/go.mod"
}

# version_in GO.MOD MODULE: the version that a block of requirements names.
version_in() { awk -v module="$2" '$1 == module { print $2; exit }' "$1"; }

# The flags that go.mod does not hold. Without the version, clients refuse a server that calls itself v0.0.0.
kubernetes_ldflags() {
  local version minor
  version=$(kubernetes_version)
  minor=${version#v1.}
  printf -- '-s -w -X k8s.io/component-base/version.gitVersion=%s -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=%s' \
    "$version" "${minor%%.*}"
}

# helm_ldflags MAJOR: its own version, and for Helm 3 the Kubernetes that templates see without a cluster, as its releases have them.
helm_ldflags() {
  awk -v major="$1" '
    $1 == "helm.sh/helm/v" major { helm = $2 }
    $1 == "k8s.io/client-go" { split($2, kubernetes, "[.]") }
    END {
      printf "-s -w -X helm.sh/helm/v%s/internal/version.version=%s", major, helm
      if (major == 3) for (i = split("chartutil lint/rules", packages, " "); i > 0; i--)
        printf " -X helm.sh/helm/v3/pkg/%s.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/%s.k8sVersionMinor=%s", packages[i], packages[i], kubernetes[2]
    }' "$parts/charts/go.mod"
}

# digest: a short name for what stands on stdin, on this kind of processor.
digest() { { cat && uname -m; } | sha256sum | cut -c 1-16; }

kubernetes_folder() {
  printf '%s/kubernetes-%s\n' "$cache" \
    "$({ cat "$parts/kubernetes/go.mod" "$parts/kubernetes/go.sum" && kubernetes_ldflags; } | digest)"
}
ferretdb_folder() { printf '%s/ferretdb-%s\n' "$cache" "$(echo "$FERRETDB_VERSION" | digest)"; }
coredns_folder() { printf '%s/coredns-%s\n' "$cache" "$(echo "$COREDNS_VERSION" | digest)"; }
charts_folder() {
  printf '%s/charts-%s\n' "$cache" \
    "$({ cat "$parts/charts/go.mod" "$parts/charts/go.sum" && helm_ldflags 3 && helm_ldflags 4 &&
      echo "$PROMETHEUS_OPERATOR_VERSION $CERT_MANAGER_VERSION"; } | digest)"
}
gitops_folder() {
  printf '%s/gitops-%s\n' "$cache" \
    "$({ cat "$parts"/gitops/go.{mod,sum} "$parts"/gitops/*.go && echo "$KUSTOMIZE_CONTROLLER_VERSION $SOURCE_CONTROLLER_VERSION"; } | digest)"
}
postgres_root() {
  printf '%s/postgres-%s\n' "$cache" \
    "$({ cat "$parts/postgres/build" "$parts/postgres/postgresql.conf" && echo "$POSTGRES_SUITE"; } | digest)"
}

# program_path NAME: where a server or client is, or would be.
program_path() {
  case $1 in
    etcd | kube* )
      if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; then
        printf '%s\n' "$KUBEBUILDER_ASSETS/$1"
      elif [ "$1" = etcd ]; then
        command -v etcd || echo etcd
      else
        printf '%s/%s\n' "$(kubernetes_folder)" "$1"
      fi
      ;;
    ferretdb) printf '%s/ferretdb\n' "$(ferretdb_folder)" ;;
    coredns) printf '%s/coredns\n' "$(coredns_folder)" ;;
    helm3 | helm4 | helm-unittest | helm-docs) printf '%s/%s\n' "$(charts_folder)" "$1" ;;
    gitops) printf '%s/gitops\n' "$(gitops_folder)" ;;
    *) command -v "$1" || echo "$1" ;;
  esac
}

# program NAME PART: the same, but where it is missing fails with the advice to install the part.
program() {
  local path
  path=$(program_path "$1")
  command -v "$path" >/dev/null || fail "$1 is not installed here (expected $path): run $parts/install $2"
  printf '%s\n' "$path"
}

# static_busybox: where one is that needs no libraries, and so runs in an image or a machine that holds nothing else.
static_busybox() {
  local path
  # A program that needs a loader names it at its beginning.
  path=$(command -v busybox) && ! head -c 4096 "$path" | grep -q --text '/ld-[lm]' && printf '%s\n' "$path"
}

# folder DIR: makes it if need be, and prints its absolute path.
folder() {
  mkdir -p "$1" && cd "$1" && pwd
}

# --- processes ---

# process_stat PID: state and start time (fields 3 and 22 of /proc/PID/stat; the name in field 2 may hold anything).
process_stat() {
  local line fields
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -r -a fields <<<"${line##*) }"
  printf '%s %s\n' "${fields[0]}" "${fields[19]}"
}

start_time() {
  local state start
  read -r state start < <(process_stat "$1") || return 1
  [ -n "$state" ] && printf '%s\n' "$start"
}

# alive PID START: is that very process still there? A zombie is not; its number given to another process is not.
alive() {
  local state start
  read -r state start < <(process_stat "$1") || return 1
  [ "$start" = "$2" ] && [ "$state" != Z ] && [ "$state" != X ]
}

gone() { ! alive "$@"; }

# working_in DIR: the pids of the processes whose working directory it is, through any mount or root folder.
working_in() {
  local process
  for process in /proc/[0-9]*; do
    if [ "$process/cwd" -ef "$1" ]; then printf '%s\n' "${process#/proc/}"; fi
  done
}

idle() { [ -z "$(working_in "$1")" ]; } # DIR

# until_true SECONDS COMMAND…: polls ten times a second; false at the deadline.
until_true() {
  local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
  shift
  until "$@"; do
    [ "${EPOCHREALTIME/./}" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}
