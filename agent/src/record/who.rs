//! Who is behind a session, as it is told: from the join's answer to its message.

use attribution::{Attribution, Confidence, Fact, Hop, PrincipalKind, Process};
use proto::v1;

/// The answer of the join.
pub fn attribution(answer: &Attribution) -> v1::Attribution {
    let kind = match answer.principal.kind {
        PrincipalKind::Kubernetes => v1::PrincipalKind::Kubernetes,
        PrincipalKind::Container => v1::PrincipalKind::Container,
        PrincipalKind::Unit => v1::PrincipalKind::Unit,
        PrincipalKind::Login => v1::PrincipalKind::Login,
        PrincipalKind::Process => v1::PrincipalKind::Process,
        PrincipalKind::Remote => v1::PrincipalKind::Remote,
        PrincipalKind::Unknown => v1::PrincipalKind::Unknown,
    };
    let process = answer.process.as_deref();
    let placement = process.map(Process::placement).unwrap_or_default();
    let kept = process.and_then(|process| process.container.as_deref().cloned());
    let kept = kept.unwrap_or_default();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    v1::Attribution {
        principal: answer.principal.id.clone(),
        kind: kind.into(),
        confidence: confidence(answer.confidence).into(),
        method: answer.method.to_owned(),
        reason: answer.reason.clone(),
        evidence: answer.evidence.iter().map(Fact::to_string).collect(),
        hops: answer.hops.iter().map(hop).collect(),
        process: process.map(self::process),
        container: placement.container_id.map(|id| v1::Container {
            id,
            runtime: match placement.runtime {
                Some(runtime) => runtime.to_owned(),
                None => kept.runtime.to_string(),
            },
            name: kept.name.unwrap_or_default(),
            image: text(kept.image.as_deref()),
        }),
        pod: placement.pod_uid.map(|uid| v1::Pod {
            uid,
            name: kept.pod.unwrap_or_default(),
            namespace: text(kept.namespace.as_deref()),
            ..v1::Pod::default()
        }),
        put_in: process.is_some_and(Process::was_put_in),
    }
}

fn confidence(confidence: Confidence) -> v1::Confidence {
    match confidence {
        Confidence::None => v1::Confidence::None,
        Confidence::Asserted => v1::Confidence::Asserted,
        Confidence::Inferred => v1::Confidence::Inferred,
        Confidence::Joined => v1::Confidence::Joined,
        Confidence::Observed => v1::Confidence::Observed,
    }
}

fn hop(hop: &Hop) -> v1::Hop {
    let client = hop.client.as_ref();
    v1::Hop {
        name: hop.principal.id.clone(),
        role: hop.relay.name().to_owned(),
        confidence: confidence(hop.confidence).into(),
        process: Some(process(&hop.process)),
        session: client
            .map(|client| client.session.to_string())
            .unwrap_or_default(),
        client_confidence: client.map_or(0, |client| confidence(client.confidence).into()),
        client_method: client.map(|client| client.method.to_owned()).unwrap_or_default(),
    }
}

fn process(process: &Process) -> v1::Process {
    let placement = process.placement();
    let ancestor = |ancestor: &attribution::Ancestor| v1::Ancestor {
        pid: ancestor.pid,
        start_ns: ancestor.start_ns,
        exe: ancestor.exe.to_string(),
    };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    v1::Process {
        pid: process.pid,
        start_ns: process.start_ns,
        exe: text(process.exe.as_deref()),
        command_line: process.command_line.iter().map(str::to_owned).collect(),
        uid: process.uid,
        user: text(process.user.as_deref()),
        login_uid: process.login_uid,
        cgroup_path: text(process.cgroup_path.as_deref()),
        cgroup_id: process.cgroup_id,
        unit: placement.unit.unwrap_or_default(),
        ancestry: process
            .descent
            .ancestry()
            .iter()
            .map(|parent| ancestor(parent))
            .collect(),
        exe_sha256: process
            .exe_sha256
            .map_or_else(Default::default, |digest| digest.to_vec()),
        audit_session: process.audit_session,
        session: process.session,
        tty: text(process.tty.as_deref()),
        namespaces: Some(v1::Namespaces {
            pid: process.namespaces.pid,
            net: process.namespaces.net,
            mnt: process.namespaces.mnt,
        }),
        run: process
            .run
            .iter()
            .map(|variable| v1::Variable {
                name: variable.name.clone(),
                value: variable.value.clone(),
            })
            .collect(),
        inner_unit: placement.inner_unit.unwrap_or_default(),
        slice: placement.slice.unwrap_or_default(),
        login_session: placement.session.unwrap_or_default(),
        login_user: text(process.login_user.as_deref()),
    }
}
