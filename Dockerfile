# One binary on a base that holds nothing but what a C program needs. Built here, whatever it is for:
# `docker buildx build --platform linux/amd64,linux/arm64 .` runs nothing of another architecture.
FROM --platform=${BUILDPLATFORM:-linux} node:22-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
ARG TARGETARCH
RUN npm run build -- ${TARGETARCH:-$(node -p process.arch)}

FROM gcr.io/distroless/base-debian12:nonroot
COPY --from=build /build/dist/combined-registry-linux-* /combined-registry
COPY --from=build /build/LICENSE /build/dist/THIRD-PARTY-LICENSES /licenses/
# Scanners see no package inside a binary, and look for this ending.
COPY --from=build /build/dist/sbom.cdx.json /
USER 65532:65532
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/combined-registry", "--healthcheck"]
ENTRYPOINT ["/combined-registry"]
