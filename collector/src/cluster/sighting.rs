//! From an object of the API server to what is kept of it.
//!
//! Owns which fields count: names and ends of pods, and whose they are. Refuses objects without a uid.

use std::{collections::BTreeMap, net::IpAddr};

use cluster::{Controller, Sighting, Uid};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};

use crate::config::KubernetesConfig;

/// The uid of an object.
pub(super) fn uid(metadata: &ObjectMeta) -> Option<Uid> {
    metadata.uid.as_deref()?.parse().ok()
}

/// The uid that a pod's cgroups have: its own, but for the image that the API server keeps of a pod of a kubelet's own files. That one
/// names the kubelet's uid, which has a form that no uid of the API server has.
pub(super) fn uid_of_cgroups(metadata: &ObjectMeta) -> Option<Uid> {
    let annotation = |name: &str| metadata.annotations.as_ref()?.get(name);
    if annotation(MIRROR).is_none() {
        return uid(metadata);
    }
    let of_kubelet: Uid = annotation(KUBELETS_UID)?.parse().ok()?;
    of_kubelet.is_of_a_kubelet().then_some(of_kubelet)
}

/// What is kept of a pod.
pub(super) fn sighting(pod: &Pod, config: &KubernetesConfig) -> Option<Sighting> {
    let metadata = &pod.metadata;
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let is_mirror = metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(MIRROR));
    let account = spec.and_then(|spec| spec.service_account_name.as_ref());
    Some(Sighting {
        uid: uid_of_cgroups(metadata)?,
        namespace: text(metadata.namespace.as_ref()),
        name: text(metadata.name.as_ref()),
        // A kubelet's own pods have nobody's rights, whatever is written.
        service_account: text(account.filter(|_| !is_mirror)),
        controller: controller(metadata).map(|owner| Controller {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.parse().ok(),
        }),
        node: text(spec.and_then(|spec| spec.node_name.as_ref())),
        labels: chosen(metadata.labels.as_ref(), &config.labels),
        annotations: chosen(metadata.annotations.as_ref(), &config.annotations),
        addresses: status.map(addresses).unwrap_or_default(),
        host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
        started: status.and_then(|status| unix_ns(status.start_time.as_ref()?)),
        running: status.and_then(running),
        ended: status.and_then(ended),
    })
}

/// What owns an object: at most one of its owners is its controller.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

fn chosen(all: Option<&BTreeMap<String, String>>, names: &[String]) -> Vec<(String, String)> {
    let of = |name: &String| Some((name.clone(), all?.get(name)?.clone()));
    names.iter().filter_map(of).collect()
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let several = status.pod_ips.iter().flatten().map(|address| &address.ip);
    let all = several.chain(status.pod_ip.as_ref());
    let mut addresses: Vec<IpAddr> = all.filter_map(|address| address.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// When the last container of a pod ended that runs none any more; what is not said of it counts as the beginning, from when on its
/// addresses may have been another's.
fn ended(status: &PodStatus) -> Option<u64> {
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let ends = containers(status).filter_map(finished);
    let began = status.start_time.as_ref().and_then(unix_ns);
    Some(ends.max().or(began).unwrap_or(0))
}

/// When the first container of a pod began, as far as that is still told. Its network is made before that.
fn running(status: &PodStatus) -> Option<u64> {
    containers(status).filter_map(began).min()
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    all.into_iter().flatten().flatten()
}

fn began(container: &ContainerStatus) -> Option<u64> {
    let state = container.state.as_ref()?;
    let running = state.running.as_ref().and_then(|state| state.started_at.as_ref());
    let ended = state
        .terminated
        .as_ref()
        .and_then(|state| state.started_at.as_ref());
    unix_ns(running.or(ended)?)
}

fn finished(container: &ContainerStatus) -> Option<u64> {
    let end = container.state.as_ref()?.terminated.as_ref()?;
    unix_ns(end.finished_at.as_ref()?)
}

fn unix_ns(time: &Time) -> Option<u64> {
    u64::try_from(time.0.as_nanosecond()).ok()
}

/// On the image of a pod of a kubelet's own files, and what that calls it
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror>).
const MIRROR: &str = "kubernetes.io/config.mirror";
const KUBELETS_UID: &str = "kubernetes.io/config.hash";
