# The node, built from this folder. Needs access to Debian's mirror and to the packages that Package.swift names.

# The toolchain must match: .ci/prepare asks for Swift 6.3, every warning is an error, and the release settings are tried
# with it alone. Its Debian must be the one below, or the libraries that are linked here have other names there.
FROM swift:6.3-bookworm AS build
# What .ci/prepare installs for building. libcurl is for FoundationNetworking, which is linked in. Versions are Debian's.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        libcurl4-openssl-dev liblz4-dev librdkafka-dev libre2-dev libsqlite3-dev libxgboost-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what says the dependencies, so that a change of the sources does not fetch them again.
COPY Package.swift Package.resolve[d] ./
RUN swift package resolve
COPY . .
# The Swift runtime goes into the executable; the C libraries stay Debian's, and get its fixes.
RUN swift build -c release --product headrace --static-swift-stdlib \
    && install -D --strip "$(swift build -c release --show-bin-path)/headrace" /out/bin/headrace

FROM debian:bookworm-slim
# tzdata for time zones, Chart.js for the console, curl for the health check.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates curl libcurl4 libjs-chart.js liblz4-1 librdkafka1 libre2-9 libsqlite3-0 libstdc++6 libxgboost0 tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin headrace \
    && install -d -o headrace -g headrace -m 0750 /data
COPY --from=build /out/bin/headrace /opt/headrace/bin/headrace
COPY Topics /opt/headrace/Topics
COPY Connectors /opt/headrace/Connectors
COPY Examples /opt/headrace/Examples
RUN ln -s /opt/headrace/bin/headrace /usr/local/bin/headrace
ENV HEADRACE_HOME=/opt/headrace HEADRACE_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s --retries=6 \
    CMD ["curl", "--fail", "--silent", "--show-error", "--max-time", "5", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["headrace"]
CMD ["start", "--host=0.0.0.0"]
