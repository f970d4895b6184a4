//! Who really connected, by others' word.
//!
//! Owns the reading of two witnesses: what the API server wrote down when it made pods and what owns them (its audit log, and now and then
//! a list), and the database's own log, in which each client says the uid that its kubelet gave it. Pure, but for opening the files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::csvlog;

/// A pod, as the API server made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) account: String,
    /// Empty until it is bound to one.
    pub(super) node: String,
    /// Kind, name and uid of its controller.
    controller: Option<(String, String, String)>,
    addresses: BTreeSet<String>,
}

/// The API server's word.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pods: HashMap<String, Pod>,
    /// The controllers of replica sets and jobs, by their uids.
    above: HashMap<String, Option<(String, String, String)>>,
}

impl Truth {
    /// Reads all that the API server wrote down.
    ///
    /// # Errors
    /// When a line, but for a last one that is being written, is none of its.
    pub(super) fn read(&mut self, audit: &Path) -> Result<()> {
        let text = fs::read_to_string(audit).with_context(|| format!("the audit log {}", audit.display()))?;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            // A server that was killed while it wrote leaves half a line; what it did is in a list.
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let resource = event.pointer("/objectRef/resource").and_then(Value::as_str);
            let code = event.pointer("/responseStatus/code").and_then(Value::as_u64);
            if let (Some(resource), Some(200..=299), Some(object)) =
                (resource, code, event.get("responseObject"))
            {
                self.take(resource, object)?;
            }
        }
        Ok(())
    }

    /// Takes in what `kubectl get … -o json` said.
    ///
    /// # Errors
    /// When it is no list.
    pub(super) fn list(&mut self, said: &str) -> Result<()> {
        let said: Value = serde_json::from_str(said).context("a list of the API server")?;
        let items = said.get("items").and_then(Value::as_array).context("a list")?;
        for item in items {
            let resource = match item.get("kind").and_then(Value::as_str) {
                Some("Pod") => "pods",
                Some("ReplicaSet") => "replicasets",
                Some("Job") => "jobs",
                _ => continue,
            };
            self.take(resource, item)?;
        }
        Ok(())
    }

    fn take(&mut self, resource: &str, object: &Value) -> Result<()> {
        let text = |pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let uid = text("/metadata/uid");
        if uid.is_empty() {
            return Ok(());
        }
        if resource != "pods" {
            self.above.insert(uid, controller(object));
            return Ok(());
        }
        let told = Pod {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            account: text("/spec/serviceAccountName"),
            node: text("/spec/nodeName"),
            controller: controller(object),
            addresses: BTreeSet::new(),
        };
        // The API server is believed about what it said of the same pod each time; if that were not the same, it would be no witness.
        let known = self.pods.entry(uid.clone()).or_insert_with(|| told.clone());
        ensure!(
            (&known.name, &known.namespace, &known.account) == (&told.name, &told.namespace, &told.account),
            "the API server tells of two pods under {uid}"
        );
        if known.node.is_empty() {
            known.node = told.node;
        }
        let address = text("/status/podIP");
        if !address.is_empty() {
            known.addresses.insert(address);
        }
        Ok(())
    }

    /// The pod of a uid.
    pub(super) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// What owns a pod, kinds and names from the pod upwards.
    pub(super) fn owners(&self, pod: &Pod) -> Vec<(String, String)> {
        let mut owners = Vec::new();
        let mut next = pod.controller.as_ref();
        while let Some((kind, name, uid)) = next {
            owners.push((kind.clone(), name.clone()));
            next = self.above.get(uid).and_then(Option::as_ref);
        }
        owners
    }

    /// How many addresses more than one of these pods had, and how many names.
    pub(super) fn used_again<'a>(&self, uids: impl Iterator<Item = &'a str>) -> (u64, u64) {
        let mut addresses: HashMap<&str, u64> = HashMap::new();
        let mut names: HashMap<(&str, &str), u64> = HashMap::new();
        for pod in uids.filter_map(|uid| self.pods.get(uid)) {
            *names
                .entry((pod.namespace.as_str(), pod.name.as_str()))
                .or_default() += 1;
            for address in &pod.addresses {
                *addresses.entry(address.as_str()).or_default() += 1;
            }
        }
        (several(addresses.into_values()), several(names.into_values()))
    }
}

fn several(counts: impl Iterator<Item = u64>) -> u64 {
    counts.filter(|count| *count > 1).map(|_| 1).sum()
}

/// What owns an object: one of its owners at most is its controller.
fn controller(object: &Value) -> Option<(String, String, String)> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    let text = |key: &str| owner.get(key)?.as_str().map(str::to_owned);
    Some((text("kind")?, text("name")?, text("uid")?))
}

/// A statement of a client, by the database's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// In no other statement.
    pub(super) mark: String,
    /// What kind of workload, as the suite calls it.
    pub(super) kind: String,
    /// Of the client's pod, by its `application_name`.
    pub(super) uid: String,
    /// `direct` or `pooled`.
    pub(super) way: String,
    /// The pod by its kubelet's word: `namespace/name/account/node`.
    pub(super) claims: String,
}

/// All marked statements of the log.
///
/// # Errors
/// When it cannot be read, or a client said something else than all clients do.
pub(super) fn said(log: &Path) -> Result<Vec<Said>> {
    let bytes = fs::read(log).with_context(|| format!("the server's log {}", log.display()))?;
    let mut said = Vec::new();
    for line in csvlog::lines(&bytes)?.iter().flatten() {
        let Some(text) = line.message.strip_prefix("statement: ") else {
            continue;
        };
        let Some(mark) = word(text, "mark") else {
            continue;
        };
        let (kind, uid) = line
            .application_name
            .split_once('/')
            .with_context(|| format!("a client calls itself {:?}", line.application_name))?;
        said.push(Said {
            mark: mark.to_owned(),
            kind: kind.to_owned(),
            uid: uid.to_owned(),
            way: word(text, "way").unwrap_or_default().to_owned(),
            claims: word(text, "pod").unwrap_or_default().to_owned(),
        });
    }
    Ok(said)
}

/// The value of a word `key=value` in a statement.
pub(super) fn word<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut words = text.split(' ');
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str, address: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"uid": uid, "name": "web-1", "namespace": "shop", "ownerReferences": [
                {"kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true}]},
            "spec": {"serviceAccountName": "web", "nodeName": node}, "status": {"podIP": address}})
    }

    #[test]
    fn the_servers_own_list_names_owners_to_the_top() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let event = |resource: &str, code: u64, object: Value| json!({"objectRef": {"resource": resource}, "responseStatus": {"code": code}, "responseObject": object});
        let set = json!({"metadata": {"uid": "r", "name": "web", "ownerReferences": [
            {"kind": "Deployment", "name": "web", "uid": "d", "controller": true}]}});
        let lines = [
            event("pods", 201, pod("u", "", "")),
            event("replicasets", 201, set),
            event("pods", 200, pod("u", "node-1", "10.244.0.9")),
            event("pods", 409, pod("refused", "", "")),
            event("pods", 201, pod("v", "node-1", "10.244.0.9")),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&log, text + "{\"objectRef").unwrap();
        let mut truth = Truth::default();
        truth.read(&log).unwrap();
        let known = truth.pod("u").unwrap();
        assert_eq!((known.account.as_str(), known.node.as_str()), ("web", "node-1"));
        let owners = truth.owners(known);
        let kinds: Vec<&str> = owners.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["ReplicaSet", "Deployment"]);
        assert!(truth.pod("refused").is_none());
        assert_eq!(truth.used_again(["u", "v"].into_iter()), (1, 1));
        let mut other = pod("u", "", "");
        other["metadata"]["name"] = json!("web-2");
        assert!(truth.list(&json!({"items": [other]}).to_string()).is_err());
    }

    #[test]
    fn clients_say_who_they_are() {
        let text = "SELECT 1 /* mark=1-2 way=pooled pod=shop/web-1/web/node-1 */";
        assert_eq!(word(text, "mark"), Some("1-2"));
        assert_eq!(word(text, "pod"), Some("shop/web-1/web/node-1"));
        assert_eq!(word("SET application_name='a/b'", "mark"), None);
    }
}
