# syntax=docker/dockerfile:1

# docker build -t dagmesh .
# docker run -d --name dagmesh -v dagmesh:/data -p 4101:4101/tcp -p 4101:4101/udp --stop-timeout 20 dagmesh
# docker exec dagmesh dagmesh status
#
# The stop timeout leaves the node its own 10 s for a clean stop.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# The caches live across builds, so the binary is copied out of them within the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package dagmesh --bin dagmesh \
    && install -D --mode 0755 target/dist/dagmesh /out/dagmesh

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="dagmesh" \
      org.opencontainers.image.description="Keeps content-addressed DAGs in sync between publishers and subscribers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
RUN groupadd --gid 10001 dagmesh \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin dagmesh \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /out/dagmesh /usr/local/bin/dagmesh
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/dagmesh/

# By number, so that an orchestrator can see that it is not root. A volume made from the image inherits the owner.
USER 10001:10001
ENV DAGMESH_HOME=/data
VOLUME /data
WORKDIR /data

# The swarm. The local API stays on the container's loopback: use `docker exec`.
EXPOSE 4101/tcp 4101/udp

STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["dagmesh", "status", "--json"]
ENTRYPOINT ["dagmesh"]
CMD ["daemon"]
