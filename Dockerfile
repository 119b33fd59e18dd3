# The images sentinel-operator, sentinel-node-agent and its variant with tools: `docker build --target operator .`, or
# node-agent, or node-agent-tools. docs/images.md describes them. `scripts/images` makes the same without a registry.
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=https://github.com/sentinel-node/sentinel-node
# The version is that of rust-toolchain.toml. A tag, because only a registry knows its digest; pin it where you build:
# --build-arg RUST_IMAGE=docker.io/library/rust@sha256:…
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm

# On the builder's own processor, also for another one: a compiler in emulation would take an hour.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG TARGETARCH=amd64
ARG PROFILE=release
# Seconds since 1970; the time in the bill of materials.
ARG SOURCE_DATE_EPOCH=0
# The one that the image has; rust-toolchain.toml also wants the tools of developers.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY images/install images/lib.sh images/
COPY tests/parts/lib.sh tests/parts/installing.sh tests/parts/
RUN images/install "$TARGETARCH"
COPY . .
RUN images/compile "$PROFILE" "$TARGETARCH" /target /out/programs operator sentinel node-agent
RUN images/sbom "$TARGETARCH" /out/programs && images/layout "$TARGETARCH" /out/programs /out

# --- scripts/images begins here ---

FROM scratch AS operator
ARG VERSION
ARG REVISION
ARG CREATED
ARG SOURCE
LABEL org.opencontainers.image.title="sentinel-operator" \
      org.opencontainers.image.description="Decides who runs a Task and when, and dispatches to the node agents; with the command line." \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.documentation="$SOURCE/blob/main/docs/images.md" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/operator /
USER 65532:65532
ENV PATH=/bin
ENTRYPOINT ["/bin/operator"]

FROM scratch AS node-agent
ARG VERSION
ARG REVISION
ARG CREATED
ARG SOURCE
LABEL org.opencontainers.image.title="sentinel-node-agent" \
      org.opencontainers.image.description="Runs commands on a node under supervisors, streams their output and reports how they ended." \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.documentation="$SOURCE/blob/main/docs/images.md" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/node-agent /
# Commands run as the user that their Task names, which only root can become.
USER 0:0
ENV PATH=/bin:/sbin:/usr/bin:/usr/sbin
ENTRYPOINT ["/bin/node-agent"]

# The same, with busybox for commands that run in the agent's own container.
FROM node-agent AS node-agent-tools
LABEL org.opencontainers.image.title="sentinel-node-agent, with tools" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-only"
COPY --from=build /out/node-agent-tools /
