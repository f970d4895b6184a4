# A job as operators write them: psql -c in a loop, a new process for every statement.
# usage: job.sh PSQL STATEMENT SECONDS PAUSE ROUNDS   (connection settings come from the PG* environment)
end=$(($(date +%s) + $3))
round=0
while [ "$round" -lt "$5" ] && [ "$(date +%s)" -lt "$end" ]; do
    "$1" -X -q -c "$2" >/dev/null || exit 1
    round=$((round + 1))
    sleep "$4"
done
