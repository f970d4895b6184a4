//! Clients in containers: every runtime's cgroup paths, namespaces of their own and shared ones, processes that were put
//! in from outside, and a server that is in one itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::container::{Container, FIRST_UID, Network, Runtime, id, uid};
use super::judge::{Expected, Findings, TELLS_PUT_IN};
use super::networks::Networks;
use super::scene::{Scene, Way};

/// Runs the part: a server of the host, then one behind a wire.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let mut findings = on_the_host(full, rounds, keep)
        .await
        .context("with the server on the host")?;
    let behind = behind_a_wire(rounds, keep)
        .await
        .context("with the server behind a wire")?;
    findings.add(&behind);
    findings.examples.extend(behind.examples);
    if !TELLS_PUT_IN {
        findings.unavailable.push((
            "containers/exec".to_owned(),
            "that a process was put into its container is not recorded yet: names alone are compared"
                .to_owned(),
        ));
    }
    Ok(findings)
}

async fn on_the_host(full: bool, rounds: usize, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    let runtime = Runtime::prepare(&scene)?;
    let mut commands = Vec::new();
    for (index, (name, group)) in LAYOUTS.into_iter().enumerate() {
        for way in [Way::Unix, Way::Tcp] {
            // The short form has every layout, and each of the ways often enough.
            if !full && (index % 2 == 0) == (way == Way::Tcp) {
                continue;
            }
            let case = format!("{name}-{}", way.name());
            let container = Container {
                group: layout(group, &case),
                network: if way == Way::Tcp {
                    Network::Host
                } else {
                    Network::Own
                },
                ..container(&case)
            };
            commands.push(of_container(
                &mut scene,
                &runtime,
                &container,
                (&case, way),
                rounds,
            )?);
        }
    }
    for (name, user_namespace, cgroup_namespace) in [("remapped", true, false), ("private", false, true)] {
        let container = Container {
            group: layout("system.slice/docker-ID.scope", name),
            user_namespace,
            cgroup_namespace,
            ..container(name)
        };
        commands.push(of_container(
            &mut scene,
            &runtime,
            &container,
            (name, Way::Unix),
            rounds,
        )?);
    }
    scene.run(commands, AT_ONCE).await?;
    put_in(&mut scene, &runtime, rounds).await?;
    scene.finish(keep).await
}

/// A container whose first process connects, and lets others connect.
fn of_container(
    scene: &mut Scene,
    runtime: &Runtime,
    container: &Container,
    (case, way): (&str, Way),
    rounds: usize,
) -> Result<Command> {
    // What a user's part of the hierarchy holds is that user's.
    let of_user = container.group.contains("/user@1.service/");
    let whose = if of_user { "user-1/" } else { "" };
    let expected = Expected {
        uid: container.user_namespace.then_some(FIRST_UID),
        cgroup: Some(scene.groups.path(&container.group)),
        ..Expected::named(format!("/container/{whose}{}", container.id))
    };
    scene.expect(case, rounds, expected);
    let count = rounds.to_string();
    let steps = ["repeat", &count, "2", "connect", "say", "1"];
    runtime.run(scene, container, &scene.environment(case, way), &steps)
}

/// A container that waits, and processes that are put in meanwhile (as `docker exec` and `kubectl exec` do).
async fn put_in(scene: &mut Scene, runtime: &Runtime, rounds: usize) -> Result<()> {
    let name = "waiting";
    let container = Container {
        group: layout("system.slice/docker-ID.scope", name),
        ..container(name)
    };
    let over = scene.place("over").display().to_string();
    let of = |put_in| Expected {
        cgroup: Some(scene.groups.path(&container.group)),
        put_in,
        ..Expected::named(format!("/container/{}", container.id))
    };
    let (own, put) = (of(false), of(true));
    scene.expect("waiting", 1, own);
    scene.expect("exec", rounds, put);
    let steps = ["connect", "say", "1", "await", &over, "say", "1"];
    let first = runtime.run(
        scene,
        &container,
        &scene.environment("waiting", Way::Unix),
        &steps,
    )?;
    let mut first = scene.start("a container", first)?;
    runtime.running(&container).await?;
    let mut commands = Vec::new();
    for _ in 0..rounds {
        let environment = scene.environment("exec", Way::Unix);
        commands.push(runtime.exec(scene, &container, &environment, &["connect", "say", "1"])?);
    }
    scene.run(commands, 4).await?;
    fs::write(&over, "")?;
    first.wait(PATIENCE).await?;
    Ok(())
}

/// The server has a network of its own, and is in a pod's cgroup; a bridge joins it with others. Two containers share
/// one network namespace, one shares the server's, and a service of the host is in one as well.
async fn behind_a_wire(rounds: usize, keep: bool) -> Result<Findings> {
    let mut networks = Networks::new();
    for name in ["hub", "db", "pod", "lone"] {
        networks.add(name)?;
    }
    networks.ip("hub", &["link", "add", "bridge", "type", "bridge"])?;
    networks.ip("hub", &["link", "set", "bridge", "up"])?;
    for (name, address) in [("db", SERVER), ("pod", "10.99.0.3"), ("lone", "10.99.0.4")] {
        networks.wire(("hub", None), (name, Some(&format!("{address}/24"))))?;
        networks.ip("hub", &["link", "set", name, "master", "bridge"])?;
    }
    let mut scene = Scene::open_within(&networks, "db").await?;
    scene.move_server(&layout(
        "kubepods.slice/kubepods-podUID.slice/cri-containerd-ID.scope",
        "server",
    ))?;
    let runtime = Runtime::prepare(&scene)?;
    let mut commands = Vec::new();
    for (name, network, host) in [
        ("pod-one", "pod", SERVER),
        ("pod-two", "pod", SERVER),
        ("alone", "lone", SERVER),
        ("sidecar", "db", "127.0.0.1"),
    ] {
        let group = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID.slice/cri-containerd-ID.scope";
        let container = Container {
            group: layout(group, name),
            network: Network::Shared(networks.path(network)),
            ..container(name)
        };
        let expected = Expected {
            cgroup: Some(scene.groups.path(&container.group)),
            ..Expected::named(format!("/container/{}", container.id))
        };
        scene.expect(name, rounds, expected);
        let mut environment = scene.environment(name, Way::Tcp);
        environment.retain(|(name, _)| *name != "PGHOST");
        environment.push(("PGHOST", host.to_owned()));
        let count = rounds.to_string();
        let steps = ["repeat", &count, "2", "connect", "say", "1"];
        commands.push(runtime.run(&scene, &container, &environment, &steps)?);
    }
    scene.expect("service", rounds, Expected::named("/unit/exporter.service"));
    let count = rounds.to_string();
    let steps = ["repeat", &count, "2", "connect", "say", "1"];
    let client = scene.program("client")?;
    let mut command = scene.client(
        ("service", Way::Tcp),
        Path::new("/usr/sbin/ip"),
        "system.slice/exporter.service",
        ["netns", "exec", &networks.name("lone")],
    )?;
    command.arg(client).args(steps).env("PGHOST", SERVER);
    commands.push(command);
    scene.run(commands, AT_ONCE).await?;
    let findings = scene.finish(keep).await;
    drop(networks);
    findings
}

fn container(name: &str) -> Container {
    Container {
        id: id(name),
        group: String::new(),
        network: Network::Own,
        user_namespace: false,
        cgroup_namespace: false,
    }
}

/// A layout with the ids of one container.
fn layout(layout: &str, name: &str) -> String {
    layout
        .replace("OUTER", &id("the node"))
        .replace(
            "UID",
            &match layout.contains("-podUID") {
                // systemd takes dashes for slashes.
                true => uid(name).replace('-', "_"),
                false => uid(name),
            },
        )
        .replace("ID", &id(name))
}

/// The cgroup paths of the runtimes, by their documentation and sources. OUTER is a container that others run in.
const LAYOUTS: [(&str, &str); 12] = [
    ("docker-systemd", "system.slice/docker-ID.scope"),
    ("docker-cgroupfs", "docker/ID"),
    ("containerd-cgroupfs", "kubepods/burstable/podUID/ID"),
    ("containerd-guaranteed", "kubepods/podUID/ID"),
    (
        "containerd-systemd",
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID.slice/cri-containerd-ID.scope",
    ),
    ("nerdctl", "system.slice/nerdctl-ID.scope"),
    (
        "cri-o",
        "kubepods.slice/kubepods-podUID.slice/crio-ID.scope/container",
    ),
    ("podman", "machine.slice/libpod-ID.scope/container"),
    (
        "podman-user",
        "user.slice/user-1.slice/user@1.service/user.slice/libpod-ID.scope/container",
    ),
    (
        "pod-by-a-user",
        "user.slice/user-1.slice/user@1.service/kubepods/burstable/podUID/ID",
    ),
    (
        "kind",
        "system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podUID.slice/cri-containerd-ID.scope",
    ),
    ("docker-in-docker", "docker/OUTER/docker/ID"),
];
const SERVER: &str = "10.99.0.2";
const ROUNDS: usize = 50;
const SHORT_ROUNDS: usize = 4;
const AT_ONCE: usize = 6;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
