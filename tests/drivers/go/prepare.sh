# Builds the Go programs; the module cache is Go's own.
set -eu
mkdir -p "$PGW_DRIVER_CACHE/go"
go build -o "$PGW_DRIVER_CACHE/go/" ./pgx ./pq
