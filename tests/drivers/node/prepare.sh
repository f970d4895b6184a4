# Installs the Node drivers; does nothing when they are there.
set -eu
home="$PGW_DRIVER_CACHE/node"
mkdir -p "$home"
cmp -s package-lock.json "$home/installed.json" && exit 0
cp package.json package-lock.json "$home/"
npm ci --silent --prefix "$home"
cp package-lock.json "$home/installed.json"
