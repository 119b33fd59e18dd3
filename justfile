# The one task runner; `just` alone lists what it can do.

# Lists what there is
default:
    @just --list --unsorted

# Everything that needs no test run: format, lints, licences, unused dependencies
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo deny check --hide-inclusion-graph licenses bans sources
    cargo shear --locked --deny-warnings --check-test-targets

# Each crate alone, so that none leans on features that another one turns on
check-each:
    for crate in sentinel-protocol sentinel-policy sentinel-secrets sentinel-core sentinel-audit sentinel-api sentinel-viewer sentinel-telemetry sentinel-operator sentinel-node-agent sentinel; do cargo check --locked -p $crate || exit 1; done

# All tests that need nothing but this machine
test *ARGS:
    cargo test --locked {{ARGS}}

# All tests, those on a real API server, Redis and MongoDB too
test-parts *ARGS:
    tests/parts/with-parts cargo test --workspace --locked {{ARGS}}

# Fault injection: everything is killed at random under load, then checked; `just chaos --kills 500 --seed 7`. As root
chaos *ARGS:
    tests/parts/install
    cargo build --locked --workspace --bins
    cargo run --quiet --locked -p sentinel-tests --bin chaos -- {{ARGS}}

# The attacks on an operator, and by one on agents, with what each cost: `just attacks http`, `just attacks node`, `just attacks --list`
attacks *ARGS:
    cargo build --locked -p sentinel-operator -p sentinel -p sentinel-node-agent -p sentinel-tests --bins
    cargo run --quiet --locked -p sentinel-tests --bin attacks -- {{ARGS}}

# Searches for inputs that break a decoder: all targets or one, SECONDS each: `just fuzz`, `just fuzz policy 600`
fuzz TARGET="all" SECONDS="60":
    scripts/fuzz {{TARGET}} {{SECONDS}}

# Adds to fuzz/corpus what `just fuzz` has found, in the fewest files
fuzz-minimise TARGET="all":
    scripts/fuzz --minimise {{TARGET}}

# How soon another operator leads a thousand agents after the leader was killed, and after it was terminated. As root
failover *ARGS:
    tests/parts/install
    cargo build --release --locked -p sentinel-operator -p sentinel-node-agent -p sentinel-tests --bins
    cargo run --release --quiet --locked -p sentinel-tests --bin chaos -- failover {{ARGS}}

# MongoDB down for minutes under load; `just outage --outage-minutes 30` for the long form. As root
outage *ARGS:
    tests/parts/install
    cargo build --locked --workspace --bins
    cargo run --quiet --locked -p sentinel-tests --bin chaos -- outage {{ARGS}}

# Power cuts and control groups in virtual machines; the first time it builds a static agent. As root
test-vm *ARGS:
    cargo test --workspace --locked --test machines_vm {{ARGS}} -- --ignored --nocapture

# Agents as pods of two real nodes, and the chart installed on them by both Helms; the first time it builds a kubelet, CoreDNS, both
# Helms, and the images of this version and the one before, which takes twenty minutes. As root
test-nodes *ARGS:
    tests/parts/install
    tests/parts/install nodes dns charts
    viewer/install browser
    scripts/images target/images --profile dev
    tests/earlier-release >/dev/null
    cargo build --workspace --locked --bin operator --bin sentinel
    tests/parts/with-parts sh -c 'tests/parts/nodes-up 2 && cargo test --workspace --locked --no-fail-fast --test machines_pods --test installed "$@" -- --ignored --show-output' -- {{ARGS}}

# Counts the words that tests/words.yaml bans, by file and by word; with paths, prints each use below them
words *PATHS:
    scripts/words {{PATHS}}

# What is generated and committed: the CRDs (in the chart too), the OpenAPI document, the command line's reference, the patch for Argo CD
generate:
    cargo run --quiet --locked -p sentinel-operator --bin crdgen -- task | scripts/replace crds/task.yaml
    cargo run --quiet --locked -p sentinel-operator --bin crdgen -- targetslice | scripts/replace crds/targetslice.yaml
    cargo run --quiet --locked -p sentinel-operator --bin operator -- openapi | scripts/replace operator/openapi.json
    cargo run --quiet --locked -p sentinel -- reference | scripts/replace docs/reference/cli.md
    cp crds/*.yaml charts/sentinel-node/files/crds/
    scripts/argocd-customizations | scripts/replace gitops/argocd/argocd-cm.yaml

# The README of the Helm chart, from its values.yaml
generate-chart:
    tests/parts/install charts
    charts/check docs --update

# All checks of the Helm chart, or those named: `just chart-check lint unit`; the last two steps start an API server
chart-check *ARGS:
    tests/parts/install kubernetes charts
    charts/check {{ARGS}}

# The operator with the chart's arguments and rights, on an API server that records what it asks for
chart-rights:
    tests/parts/install kubernetes charts
    cargo build --locked -p sentinel-operator -p sentinel-node-agent --bins
    charts/tests/rights target/debug

# Dev mode, with the files given
dev *ARGS="examples/hello.yaml":
    cargo run --release --locked -p sentinel -- dev {{ARGS}}

# The types and unit tests of the web page's modules, and that its libraries are what npm has
page-check *ARGS:
    viewer/check {{ARGS}}

# The web page in a headless Chromium, against dev mode; screenshots are in target/viewer
page-browse *ARGS:
    cargo build --locked -p sentinel -p sentinel-operator
    viewer/browse {{ARGS}}

# The same against an operator on a real API server, Redis and a MongoDB-compatible server, with real agents
page-stores *ARGS:
    tests/parts/install
    cargo build --locked -p sentinel -p sentinel-operator -p sentinel-node-agent -p sentinel-tests --bins
    tests/parts/with-parts viewer/browse --test-name-pattern='real stores' {{ARGS}}

# A log of ten million lines in the page, and one whose connection is cut a hundred times: some minutes
page-long *ARGS:
    cargo build --release --locked -p sentinel
    SENTINEL_BIN={{justfile_directory()}}/target/release/sentinel viewer/browse --long {{ARGS}}

# A set of real parts, left running; where they are is in target/parts/parts.json
parts-up:
    tests/parts/up

# Ends what parts-up started
parts-down:
    tests/parts/down

# Figures beside their limits on this machine: all, or sections: `just bench dispatch`, `just bench peers`, `just bench soak --minutes 60`
bench *ARGS:
    tests/parts/with-parts cargo run --release --locked -p sentinel-tests --bin bench -- {{ARGS}}

# The small build of the node agent
agent:
    cargo build --locked --profile agent -p sentinel-node-agent --bin node-agent

# The images, as docker-archives in target/images; `just images --arch arm64`
images *ARGS:
    scripts/images target/images {{ARGS}}

# What the images hold, whether their programs start, and their sizes; `just images-check release arm64`. As root
images-check PROFILE="release" ARCH="native":
    images/install {{ARCH}} assemble check
    SENTINEL_IMAGES_PROFILE={{PROFILE}} SENTINEL_IMAGES_ARCH={{ARCH}} cargo test --workspace --locked --test images -- --include-ignored

# A kind cluster with Sentinel Node in it, of images that are made here; needs kind, kubectl and helm. Nodes are containers
kind-up:
    scripts/images target/images
    kind create cluster --name sentinel --config kind-config.yaml
    for image in operator node-agent node-agent-tools; do kind load image-archive --name sentinel target/images/sentinel-$image.tar || exit 1; done
    helm --kube-context kind-sentinel install sentinel-node charts/sentinel-node --namespace sentinel-system --create-namespace \
      --values charts/sentinel-node/ci/kind-values.yaml --wait --timeout 3m
    helm --kube-context kind-sentinel test sentinel-node --namespace sentinel-system

# Deletes it
kind-down:
    kind delete cluster --name sentinel
