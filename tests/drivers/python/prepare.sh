# Makes the virtual environment of the Python drivers; does nothing when it is up to date.
set -eu
home="$PGW_DRIVER_CACHE/python"
cmp -s requirements.txt "$home/requirements.txt" && exit 0
python3 -m venv "$home"
"$home/bin/pip" install --quiet --requirement requirements.txt
cp requirements.txt "$home/requirements.txt"
