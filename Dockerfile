# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
# ring, SQLite and the allocator have C parts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The dependencies are a layer of their own: with empty crates in place of the real ones, it is built again only when
# a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY crates/conductor/Cargo.toml crates/conductor/
COPY crates/conductor-bench/Cargo.toml crates/conductor-bench/
COPY crates/conductor-core/Cargo.toml crates/conductor-core/
COPY crates/conductor-store/Cargo.toml crates/conductor-store/
COPY crates/conductor-channels/Cargo.toml crates/conductor-channels/
RUN for crate in crates/*; do mkdir -p "$crate/src" "$crate/tests/it" && touch "$crate/src/lib.rs" "$crate/tests/it/main.rs"; done \
    && echo 'fn main() {}' | tee crates/conductor/src/main.rs > crates/conductor-bench/src/main.rs \
    && cargo build --release --locked --package conductor \
    && rm -rf crates

# Cargo compares times: the real sources have to be newer than what was built from the empty ones.
COPY crates crates
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package conductor

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 conductor \
    && useradd --system --uid 10001 --gid 10001 --home-dir /app --shell /usr/sbin/nologin conductor \
    && install --directory --owner=10001 --group=10001 /app /app/data /app/data/config
COPY --from=build /src/target/release/conductor /usr/local/bin/conductor
USER 10001:10001
WORKDIR /app
VOLUME /app/data
EXPOSE 3333
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["conductor", "health"]
ENTRYPOINT ["conductor"]
