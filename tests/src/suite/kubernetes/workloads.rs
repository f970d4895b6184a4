//! What runs in the cluster: a database, PgBouncer in transaction mode, and clients of every kind of workload.
//!
//! Owns the objects as the API takes them. All clients are the same program, which knows of itself what its kubelet tells it.

use std::path::Path;

use serde_json::{Value, json};

/// Where clients are.
pub(super) const NAMESPACES: [&str; 3] = [SHOP, BACK, BATCH];
pub(super) const SHOP: &str = "shop";
pub(super) const BACK: &str = "back";
pub(super) const BATCH: &str = "batch";
/// The image of everything.
pub(super) const IMAGE: &str = "localhost/names:1";
/// The client's program in it.
pub(super) const CLIENT: &str = "client.sh";
/// The role by which all clients are found, of objects and of pods.
pub(super) const CLIENTS: &str = "role=client";
/// Where the collector's account is, and what it is called.
pub(super) const OURS: &str = "pgwitness";
pub(super) const COLLECTOR: &str = "collector";

/// The accounts of a namespace, but for `default`.
pub(super) fn accounts(namespace: &str) -> Value {
    let names: &[&str] = match namespace {
        SHOP => &["db", "pooler", "web", "stock", "wander-a", "wander-b", "once"],
        BACK => &["api", "probe"],
        _ => &["report", "import"],
    };
    let account =
        |name: &&str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    list(names.iter().map(account).collect())
}

/// The collector's account, and what `docs/kubernetes-names.md` says that it has to be allowed.
pub(super) fn collector() -> Value {
    let rule = |group: &str, what: &str| json!({"apiGroups": [group], "resources": [what], "verbs": ["list", "watch"]});
    let name = json!({"name": COLLECTOR});
    list(vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": name,
            "rules": [rule("", "pods"), rule("apps", "replicasets"), rule("batch", "jobs")]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": name,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": COLLECTOR},
            "subjects": [{"kind": "ServiceAccount", "name": COLLECTOR, "namespace": OURS}]}),
    ])
}

/// The database. Its log is a folder of this machine, so that it outlives the pod.
pub(super) fn database(log: &Path) -> Value {
    let spec = json!({
        "dnsPolicy": "Default", "serviceAccountName": "db", "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 10,
        "containers": [{
            "name": "postgres", "image": IMAGE, "command": ["sh", "-ec", SERVER],
            "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "/tmp"]}, "periodSeconds": 1},
            // In order, so that the log has everything.
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "kill -INT 1; sleep 1"]}}},
            "volumeMounts": [{"name": "log", "mountPath": "/log"}, {"name": "data", "mountPath": "/data"}],
        }],
        "securityContext": {"fsGroup": 100},
        "volumes": [{"name": "log", "hostPath": {"path": log, "type": "Directory"}}, {"name": "data", "emptyDir": {}}],
    });
    let mut set = many("StatefulSet", "db", Some(1), &spec, &json!({"app": "db"}));
    put(&mut set, "/spec", "serviceName", json!("db"));
    list(vec![service("db", DIRECT, 5432), set])
}

/// PgBouncer.
pub(super) fn pooler() -> Value {
    let settings = format!(
        "[databases]\npostgres = host={DIRECT} port=5432 dbname=postgres user=postgres\n[pgbouncer]\nlisten_addr = *\n\
         listen_port = 6432\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 5\n\
         max_client_conn = 1000\nserver_login_retry = 1\n"
    );
    let spec = json!({
        "dnsPolicy": "Default", "serviceAccountName": "pooler", "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "pgbouncer", "image": IMAGE, "env": [{"name": "SETTINGS", "value": settings}],
            "command": ["sh", "-ec", "echo \"$SETTINGS\" >/tmp/pgbouncer.ini; exec /usr/sbin/pgbouncer /tmp/pgbouncer.ini"],
            "readinessProbe": {"tcpSocket": {"port": 6432}, "periodSeconds": 1},
        }],
    });
    list(vec![
        service("pooler", POOLED, 6432),
        many("Deployment", "pooler", Some(1), &spec, &json!({"app": "pooler"})),
    ])
}

/// Clients of a namespace that stay until they are ended.
pub(super) fn standing(namespace: &str, pause: &str) -> Value {
    let of = |kind: &str, name: &str, replicas: Option<u32>, spec: Value| {
        many(
            kind,
            name,
            replicas,
            &spec,
            &json!({"app": name, "role": "client"}),
        )
    };
    let stays = |kind: &str, account: &str| client(kind, account, (0, pause), "Always");
    match namespace {
        SHOP => {
            let mut stock = of("StatefulSet", "stock", Some(2), stays("statefulset", "stock"));
            put(&mut stock, "/spec", "serviceName", json!("stock"));
            put(&mut stock, "/spec", "podManagementPolicy", json!("Parallel"));
            let web = stays("deployment-web", "web");
            list(vec![stock, of("Deployment", "web", Some(2), web)])
        }
        BACK => list(vec![
            of("Deployment", "api", Some(2), stays("deployment-api", "api")),
            of("DaemonSet", "probe", None, stays("daemonset", "probe")),
            of("ReplicaSet", "cache", Some(2), stays("replicaset", "default")),
        ]),
        _ => list(vec![
            of(
                "Deployment",
                "mixed",
                Some(2),
                stays("deployment-mixed", "default"),
            ),
            json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report", "labels": {"role": "client"}},
                "spec": {
                    // All of them stay, so that each can be looked up.
                    "schedule": "* * * * *", "successfulJobsHistoryLimit": 100, "failedJobsHistoryLimit": 100,
                    "jobTemplate": {
                        "metadata": {"labels": {"role": "client"}},
                        "spec": work(client("cronjob", "report", (6, "0"), "OnFailure")),
                    },
                },
            }),
        ]),
    }
}

/// A job that is done soon.
pub(super) fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {"role": "client"}},
        "spec": work(client("job", "import", (10, "0"), "OnFailure")),
    })
}

/// A pod that nobody looks after.
pub(super) fn bare(name: &str, account: &str, pause: &str) -> Value {
    pod(name, &client("pod", account, (0, pause), "Always"))
}

/// The same, and it is done soon.
pub(super) fn once(name: &str) -> Value {
    pod(name, &client("pod-once", "once", (6, "0"), "Never"))
}

fn pod(name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "labels": {"role": "client"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn work(spec: Value) -> Value {
    let metadata = json!({"labels": {"role": "client"}});
    json!({"backoffLimit": 50, "template": {"metadata": metadata, "spec": spec}})
}

fn many(kind: &str, name: &str, replicas: Option<u32>, spec: &Value, labels: &Value) -> Value {
    let mut of = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    if let Some(replicas) = replicas {
        put(&mut of, "/spec", "replicas", json!(replicas));
    }
    of
}

fn put(object: &mut Value, pointer: &str, key: &str, value: Value) {
    if let Some(Value::Object(fields)) = object.pointer_mut(pointer) {
        fields.insert(key.to_owned(), value);
    }
}

/// What a client's pod is made of; it says what its kubelet tells it.
fn client(kind: &str, account: &str, (count, pause): (u32, &str), restart: &str) -> Value {
    let told = [
        ("POD_UID", "metadata.uid"),
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("ACCOUNT", "spec.serviceAccountName"),
        ("NODE", "spec.nodeName"),
    ]
    .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    let places = [("DIRECT", DIRECT), ("POOLED", POOLED)];
    let places = places.map(|(name, value)| json!({"name": name, "value": value}));
    let environment: Vec<Value> = told.into_iter().chain(places).collect();
    json!({
        "dnsPolicy": "Default", "serviceAccountName": account, "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1, "restartPolicy": restart,
        "containers": [{
            "name": "client", "image": IMAGE, "env": environment,
            "command": ["sh", format!("/{CLIENT}"), kind, count.to_string(), pause],
        }],
    })
}

fn service(name: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [{"port": port}]},
    })
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Addresses of services, which clients of all namespaces know.
const DIRECT: &str = "10.96.0.100";
const POOLED: &str = "10.96.0.101";
/// The log as `csvlog` wants it. What it holds need not outlive anything.
const SERVER: &str = "initdb -D /data/pg -A trust -U postgres --no-sync >/dev/null\n\
    echo 'host all all all trust' >>/data/pg/pg_hba.conf\n\
    exec postgres -D /data/pg -k /tmp -c listen_addresses='*' -c max_connections=300 -c fsync=off -c logging_collector=on \
    -c log_destination=csvlog -c log_directory=/log -c log_filename=server.log -c log_rotation_age=0 -c log_rotation_size=0 \
    -c log_statement=all -c log_timezone=UTC";
