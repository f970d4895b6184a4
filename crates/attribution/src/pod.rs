//! What a workload is called once the API server of its cluster has told which pod it is.
//!
//! Owns the words and the confidence of a name that rests on a pod. Pure: whoever has the two events that an amendment names makes
//! the same attribution of them. Refuses to be surer of the name than its host was of the connection; to name anything but the container
//! that the host itself saw, in the pod whose uid its cgroup has; and, by an address, anything that was not recorded as that address alone.

use std::net::IpAddr;

use proto::v1::{self, Confidence, PrincipalKind};

use crate::{POOLER, Principal, amendment::is_named, may_be_joined};

/// Of the rules here: raised with every change of what they answer. No other rules have the same number.
pub const POD_VERSION: u32 = 5;

/// `Amendment.match` of names by a pod's uid. The method stays: it is how the connection was attributed.
pub const POD_UID: &str = "pod-uid";

/// `Amendment.match` of names by a pod's address; the method, too.
pub const POD_ADDRESS: &str = "pod-address";

/// The methods by which a host finds by itself whose a session is, or what a pooler says in it on its own account: under each, all of a
/// session is one process'. Statements that a pooler passed on are their clients', and have the names of those.
pub const OWN_METHODS: [&str; 4] = ["tcp-owner", "tcp-holder", "unix-peer-cred", POOLER];

/// The uid of the pod that an attribution may get the name of: that of a container, by its host's word.
#[must_use]
pub fn pod_uid(attribution: &v1::Attribution) -> Option<&str> {
    let is_container = attribution.kind == i32::from(PrincipalKind::Container) && is_named(attribution);
    let pod = attribution.pod.as_ref().filter(|_| is_container)?;
    Some(pod.uid.as_str()).filter(|uid| !uid.is_empty())
}

/// The same, of what a session's own host says of the session.
#[must_use]
pub fn own_pod_uid(recorded: &v1::Attribution) -> Option<&str> {
    let is_own = OWN_METHODS.contains(&recorded.method.as_str()) && recorded.hops.is_empty();
    pod_uid(recorded).filter(|_| is_own)
}

/// The same, of [the client](crate::passed_on) of a statement that a pooler passed on: what comes from that client is one process', unless
/// it is another pooler, which said this itself and passes on its own clients' beside.
#[must_use]
pub fn client_pod_uid(client: &v1::Attribution) -> Option<&str> {
    own_pod_uid(client).filter(|_| client.method != POOLER)
}

/// Whether an attribution has its name by a pod's uid.
#[must_use]
pub fn is_by_pod_uid(attribution: &v1::Attribution) -> bool {
    attribution.kind == i32::from(PrincipalKind::Kubernetes) && attribution.method != POD_ADDRESS
}

/// Whether both are the same container of the same pod, whatever they are called.
#[must_use]
pub fn is_same_container(one: &v1::Attribution, other: &v1::Attribution) -> bool {
    let of = |attribution: &v1::Attribution| {
        let (pod, container) = (attribution.pod.as_ref()?, attribution.container.as_ref()?);
        (!pod.uid.is_empty()).then(|| (pod.uid.clone(), container.id.clone()))
    };
    of(one).is_some_and(|of_one| of(other) == Some(of_one))
}

/// The attribution with the name of its pod, by the event with this id; `None` where that tells of another pod, or of one
/// that the container's own configuration calls differently.
#[must_use]
pub fn in_pod(
    recorded: &v1::Attribution,
    event_id: &str,
    told: &v1::KubernetesPod,
) -> Option<v1::Attribution> {
    let uid = pod_uid(recorded)?;
    let pod = told.pod.as_ref().filter(|pod| pod.uid == uid)?;
    let own = recorded.pod.as_ref()?;
    let differs = |own: &str, told: &str| !own.is_empty() && own != told;
    if differs(&own.name, &pod.name) || differs(&own.namespace, &pod.namespace) {
        return None;
    }
    let mut named = recorded.clone();
    named.principal = principal(told)?;
    named.kind = PrincipalKind::Kubernetes.into();
    named.evidence.push(format!(
        "the cgroup is of the pod {uid}, which is {} by the word of the cluster's API server (event {event_id}); its host \
         calls it {}",
        words(pod),
        recorded.principal
    ));
    named.pod = Some(pod.clone());
    Some(named)
}

/// The attribution of a session that was recorded as an address, `at` which time a pod had that; `None` where the event does
/// not say so.
#[must_use]
pub fn by_address(
    session: &v1::Session,
    recorded: &v1::Attribution,
    at: u64,
    event_id: &str,
    told: &v1::KubernetesPod,
) -> Option<v1::Attribution> {
    let address = remote_address(session, recorded)?;
    let had = told.addresses.iter().any(|held| {
        held.addr.parse().is_ok_and(|held: IpAddr| held == address)
            && held.from_ns <= at
            && (held.to_ns == 0 || at <= held.to_ns)
    });
    let pod = told.pod.as_ref().filter(|_| had)?;
    let mut named = recorded.clone();
    named.principal = principal(told)?;
    named.kind = PrincipalKind::Kubernetes.into();
    named.confidence = Confidence::Inferred.into();
    POD_ADDRESS.clone_into(&mut named.method);
    named.evidence.push(format!(
        "at that time {address} was the address of the pod {}, which is {} by the word of the cluster's API server (event \
         {event_id}), and of no other pod",
        pod.uid,
        words(pod)
    ));
    named.pod = Some(pod.clone());
    Some(named)
}

/// The address that is all that is known of a session's client.
#[must_use]
pub fn remote_address(session: &v1::Session, recorded: &v1::Attribution) -> Option<IpAddr> {
    let is_address = recorded.kind == i32::from(PrincipalKind::Remote) && recorded.method == "address";
    if !is_address || !may_be_joined(session, recorded) {
        return None;
    }
    let address: IpAddr = session.client.as_ref()?.addr.parse().ok()?;
    Some(address.to_canonical())
}

fn principal(told: &v1::KubernetesPod) -> Option<String> {
    let pod = told.pod.as_ref()?;
    Principal::of_pod(
        &told.trust_domain,
        &pod.namespace,
        &pod.service_account,
        &pod.name,
    )
    .map(|principal| principal.id)
}

fn words(pod: &v1::Pod) -> String {
    let account = match pod.service_account.as_str() {
        "" => "without a service account".to_owned(),
        account => format!("of the service account {account}"),
    };
    let owners: Vec<String> = pod
        .owners
        .iter()
        .map(|owner| format!(", of the {} {}", owner.kind, owner.name))
        .collect();
    format!("{}/{} {account}{}", pod.namespace, pod.name, owners.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6";

    fn told() -> v1::KubernetesPod {
        v1::KubernetesPod {
            pod: Some(v1::Pod {
                uid: UID.to_owned(),
                name: "orders-x".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "orders".to_owned(),
                owners: vec![v1::Owner {
                    kind: "Deployment".to_owned(),
                    name: "orders".to_owned(),
                }],
                ..v1::Pod::default()
            }),
            trust_domain: "example.org".to_owned(),
            addresses: vec![v1::PodAddress {
                addr: "10.0.0.5".to_owned(),
                from_ns: 100,
                to_ns: 200,
            }],
            owners_complete: true,
        }
    }

    fn container() -> v1::Attribution {
        v1::Attribution {
            principal: "spiffe://td/host/n1/container/abc".to_owned(),
            kind: PrincipalKind::Container.into(),
            confidence: Confidence::Observed.into(),
            method: "tcp-owner".to_owned(),
            pod: Some(v1::Pod {
                uid: UID.to_owned(),
                ..v1::Pod::default()
            }),
            container: Some(v1::Container {
                id: "abc".to_owned(),
                ..v1::Container::default()
            }),
            ..v1::Attribution::default()
        }
    }

    #[test]
    fn the_uid_gives_the_name_and_nothing_more() {
        let recorded = container();
        let named = in_pod(&recorded, "c-1", &told()).expect("a name");
        assert_eq!(named.principal, "spiffe://example.org/ns/shop/sa/orders");
        assert_eq!(
            (named.confidence, &named.method),
            (recorded.confidence, &recorded.method)
        );
        assert_eq!(named.pod, told().pod);
        let words = named.evidence.last().expect("why");
        assert!(
            words.contains("shop/orders-x") && words.contains("c-1") && words.contains("/container/abc"),
            "{words}"
        );
        assert!(is_by_pod_uid(&named) && is_same_container(&named, &recorded));
        assert_eq!(in_pod(&named, "c-1", &told()), None, "once");
    }

    #[test]
    fn another_pod_is_never_taken() {
        let mut other = container();
        other.pod = Some(v1::Pod {
            uid: UID.replace('c', "d"),
            ..v1::Pod::default()
        });
        assert_eq!(in_pod(&other, "c-1", &told()), None);
        let mut renamed = container();
        renamed.pod = renamed.pod.map(|pod| v1::Pod {
            name: "orders-y".to_owned(),
            ..pod
        });
        assert_eq!(
            in_pod(&renamed, "c-1", &told()),
            None,
            "one of the two says what is not so"
        );
        let mut unknown = container();
        unknown.principal = "unknown".to_owned();
        unknown.kind = PrincipalKind::Unknown.into();
        assert_eq!(
            in_pod(&unknown, "c-1", &told()),
            None,
            "a relay's process is not whose it is"
        );
        let mut pooled = container();
        pooled.method = "lease".to_owned();
        assert_eq!(
            own_pod_uid(&pooled),
            None,
            "it is looked up by its client's session"
        );
    }

    #[test]
    fn an_address_is_a_name_at_its_time_alone() {
        let session = v1::Session {
            transport: v1::Transport::Tcp.into(),
            client: Some(v1::Endpoint {
                addr: "10.0.0.5".to_owned(),
                port: 50_000,
            }),
            ..v1::Session::default()
        };
        let recorded = v1::Attribution {
            principal: "spiffe://td/addr/10.0.0.5".to_owned(),
            kind: PrincipalKind::Remote.into(),
            confidence: Confidence::Inferred.into(),
            method: "address".to_owned(),
            ..v1::Attribution::default()
        };
        let named = |at| by_address(&session, &recorded, at, "c-1", &told());
        let in_time = named(150).expect("a name");
        assert_eq!(in_time.principal, "spiffe://example.org/ns/shop/sa/orders");
        assert_eq!(in_time.method, POD_ADDRESS);
        assert_eq!(in_time.confidence, i32::from(Confidence::Inferred));
        assert!(named(99).is_none() && named(201).is_none());
        assert!(by_address(&session, &container(), 150, "c-1", &told()).is_none());
    }
}
