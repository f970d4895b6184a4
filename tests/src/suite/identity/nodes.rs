//! Nodes as network namespaces, with a router between them that translates addresses.
//!
//! Owns the scenery and its journal. One kernel has both ends, and its agent finds who opened a connection whatever became
//! of its addresses on the way.

use std::path::Path;

use anyhow::Result;

use super::judge::{Expected, Findings};
use super::networks::Networks;
use super::scene::{Scene, Way};

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let networks = build()?;
    let mut scene = Scene::open_within(&networks, "db").await?;
    networks.run("router", &["nft", &rules(scene.cluster.port())])?;
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let mut commands = Vec::new();
    for case in CASES {
        for node in ["one", "two"] {
            let name = format!("{}-{node}", case.name);
            scene.expect(
                &name,
                rounds,
                Expected::named(format!("/unit/{}.service", case.name)),
            );
            let client = scene.program("client")?;
            let count = rounds.to_string();
            let group = format!("system.slice/{}.service", case.name);
            let into = ["netns", "exec", &networks.name(node)];
            let mut command = scene.client((&name, Way::Tcp), Path::new("/usr/sbin/ip"), &group, into)?;
            command
                .arg(client)
                .args(["repeat", &count, "2", "connect", "say", "1"]);
            let port = case.port.unwrap_or(scene.cluster.port());
            let host = if case.port.is_some() {
                gateway(node)
            } else {
                SERVER.to_owned()
            };
            command.env("PGHOST", host).env("PGPORT", port.to_string());
            commands.push(command);
        }
    }
    let at_once = commands.len();
    scene.run(commands, at_once).await?;
    let findings = scene.finish(keep).await?;
    drop(networks);
    Ok(findings)
}

/// How a client reaches the server.
struct Case {
    name: &'static str,
    /// The router's port, which leads to the server; the server's own address if there is none.
    port: Option<u16>,
}

const CASES: [Case; 3] = [
    Case {
        name: "routed",
        port: None,
    },
    Case {
        name: "translated",
        port: Some(TRANSLATED),
    },
    Case {
        name: "masqueraded",
        port: Some(MASQUERADED),
    },
];

/// The server's node and two more, each with a wire to the router.
pub(super) fn build() -> Result<Networks> {
    let mut networks = Networks::new();
    for name in ["router", "db", "one", "two"] {
        networks.add(name)?;
    }
    for node in ["db", "one", "two"] {
        let (own, gateway) = (format!("{}/24", address(node)), gateway(node));
        networks.wire(("router", Some(&format!("{gateway}/24"))), (node, Some(&own)))?;
        networks.ip(node, &["route", "add", "default", "via", &gateway])?;
    }
    networks.forward("router")?;
    Ok(networks)
}

pub(super) fn address(node: &str) -> String {
    match node {
        "db" => SERVER,
        "one" => "10.98.2.2",
        "two" => "10.98.3.2",
        "edge" => "10.98.4.2",
        _ => "10.98.5.2",
    }
    .to_owned()
}

pub(super) fn gateway(node: &str) -> String {
    format!("{}1", address(node).trim_end_matches('2'))
}

/// As a service's address is translated (DNAT), and as a node hides its pods (masquerading).
pub(super) fn rules(port: u16) -> String {
    format!(
        "table ip t {{\nchain before {{\ntype nat hook prerouting priority dstnat;\n\
         tcp dport {TRANSLATED} dnat to {SERVER}:{port}\n\
         tcp dport {MASQUERADED} meta mark set 1 dnat to {SERVER}:{port}\n}}\n\
         chain after {{\ntype nat hook postrouting priority srcnat;\nmeta mark 1 masquerade\n}}\n}}\n"
    )
}

pub(super) const SERVER: &str = "10.98.1.2";
/// Towards the server.
pub(super) const ROUTER: &str = "10.98.1.1";
pub(super) const TRANSLATED: u16 = 6001;
pub(super) const MASQUERADED: u16 = 6002;
const ROUNDS: usize = 100;
const SHORT_ROUNDS: usize = 10;
