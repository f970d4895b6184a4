# A client in a pod: a connection for each statement, directly and through PgBouncer in turns, told who it is by its kubelet.
# $1: what kind of workload it is; $2: how many connections, 0: without an end; $3: seconds between them.
# DIRECT and POOLED: where to; POD_UID, POD_NAMESPACE, POD_NAME, ACCOUNT, NODE: who.
trap 'exit 0' TERM
kind=$1 left=$2
way=direct host=$DIRECT port=5432
export PGAPPNAME="$kind/$POD_UID" PGCONNECT_TIMEOUT=3 PGUSER=postgres PGDATABASE=postgres
while :; do
    read -r mark </proc/sys/kernel/random/uuid
    text="SELECT 1 /* mark=$mark way=$way pod=$POD_NAMESPACE/$POD_NAME/$ACCOUNT/$NODE */"
    if psql -qAtX -h "$host" -p "$port" -c "$text" >/dev/null 2>&1; then
        left=$((left - 1))
        [ "$left" -eq 0 ] && exit 0
    else
        sleep 0.3
    fi
    case $way in
    direct) way=pooled host=$POOLED port=6432 ;;
    *) way=direct host=$DIRECT port=5432 ;;
    esac
    [ "$3" = 0 ] || sleep "$3"
done
