# Fetches the JDBC driver and compiles the programs; does nothing when they are newer than their sources.
set -eu
home="$PGW_DRIVER_CACHE/java"
mkdir -p "$home"
cat pom.xml ./*.java > "$home/sources.new"
cmp -s "$home/sources.new" "$home/sources" && exit 0
mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory="$home/lib"
javac -d "$home/classes" -cp "$home/lib/*" ./*.java
mv "$home/sources.new" "$home/sources"
