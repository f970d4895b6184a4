//! Hosts with an agent each: the server's sees where a connection comes from, the client's sees whose it is.
//!
//! Owns the scenery and its journal. A host is a network namespace and a cgroup here, and its agent has to do with that
//! cgroup alone (`tap.within`), so that no agent can see both ends. Between them addresses stay, are translated (DNAT), are
//! hidden (masquerading), and stand for two hosts at once. At last agents and collector are ended in the middle: what could
//! not be joined then keeps the name that it had.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::judge::{Expected, Findings, Who};
use super::networks::Networks;
use super::nodes::{self, MASQUERADED, ROUTER, SERVER, TRANSLATED, address, gateway};
use super::scene::{Scene, Way};
use crate::doctor::Doctor;
use crate::tap::{Settings, Tier};

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let networks = build()?;
    let mut scene = Scene::unwatched_within(&networks, "db").await?;
    networks.run("router", &["nft", &nodes::rules(scene.cluster.port())])?;
    scene.move_server("db/system.slice/postgresql.service")?;
    let settings = of_host(&scene, "db");
    scene.start_tap_with(settings).await?;
    for host in WATCHED {
        let settings = of_host(&scene, host);
        let mut agent = scene.tap()?.another_agent(host, settings)?;
        agent.start().await?;
        scene.others.push(agent);
    }
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let mut commands = Vec::new();
    for (case, host) in everything() {
        commands.push(clients(&mut scene, &networks, (case, host, "quiet"), rounds)?);
    }
    scene.run(commands, AT_ONCE).await?;
    // An agent tells of a connection when nobody met its server's end for two seconds: if it is killed before, nobody does.
    tokio::time::sleep(TOLD).await;
    in_the_middle(&mut scene, &networks, rounds).await?;
    let mut findings = scene.finish(keep).await?;
    drop(networks);
    if Doctor::ask()?.has_tier_b_alone() {
        // Nobody tells whose connections lead to the server: their address is all that can be asked for.
        (findings.cross_host, findings.cross_host_joined) = (0, 0);
        let reason =
            "whose connections lead to other hosts is told with tier A only, which this kernel has not";
        findings
            .unavailable
            .push(("hosts/joined".to_owned(), reason.to_owned()));
    }
    Ok(findings)
}

/// Every agent and the collector end while clients come and go, one after the other, and come back.
async fn in_the_middle(scene: &mut Scene, networks: &Networks, rounds: usize) -> Result<()> {
    let mut running = Vec::new();
    for (case, host) in everything() {
        let command = clients(scene, networks, (case, host, "broken"), rounds.max(IN_THE_MIDDLE))?;
        running.push(scene.start("clients", command)?);
    }
    // Whose facts come late, they are joined late.
    other(scene, "two")?.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(A_WHILE).await;
    other(scene, "one")?.kill().await?;
    other(scene, "one")?.start().await?;
    scene.tap()?.kill_collector().await?;
    tokio::time::sleep(A_WHILE).await;
    scene.tap()?.start_collector().await?;
    scene.tap()?.agent.kill().await?;
    scene.tap()?.agent.start().await?;
    other(scene, "two")?.signal(Signal::SIGCONT)?;
    for mut process in running {
        process.wait(PATIENCE).await?;
    }
    Ok(())
}

fn other<'a>(scene: &'a mut Scene, host: &str) -> Result<&'a mut crate::tap::Agent> {
    let place = WATCHED.iter().position(|watched| *watched == host);
    place
        .and_then(|place| scene.others.get_mut(place))
        .context("no such agent")
}

/// Many short clients of one host, that come one way.
fn clients(
    scene: &mut Scene,
    networks: &Networks,
    (case, host, when): (&Case, &str, &str),
    rounds: usize,
) -> Result<Command> {
    let name = format!("{}-{host}-{when}", case.name);
    let seen_as = match case.seen_as {
        Seen::Itself => address(if host == "three" { "edge" } else { host }),
        Seen::Router => ROUTER.to_owned(),
    };
    let expected = if host == "bare" {
        Expected::of(Who::Inferred(format!("/addr/{seen_as}")))
    } else {
        Expected::of(Who::Elsewhere {
            named: format!("/host/{host}/unit/{}.service", case.name),
            address: seen_as.clone(),
            counts: when == "quiet" && seen_as == address(host),
        })
    };
    let expected = Expected {
        // As the agent of the host knows it.
        cgroup: Some(format!("/system.slice/{}.service", case.name)),
        lossy: when == "broken",
        ..expected
    };
    scene.expect(&name, rounds, expected);
    let program = scene.program("client")?;
    let group = format!("{host}/system.slice/{}.service", case.name);
    let into = ["netns", "exec", &networks.name(host)];
    let mut command = scene.client((&name, Way::Tcp), Path::new("/usr/sbin/ip"), &group, into)?;
    let count = rounds.to_string();
    command
        .arg(program)
        .args(["repeat", &count, "2", "connect", "say", "1"]);
    let server = match case.port {
        Some(_) => gateway(if host == "three" { "edge" } else { host }),
        None => SERVER.to_owned(),
    };
    let port = case.port.unwrap_or(scene.cluster.port());
    command.env("PGHOST", server).env("PGPORT", port.to_string());
    Ok(command)
}

/// An agent that has to do with one host alone.
fn of_host(scene: &Scene, host: &str) -> Settings {
    let within = scene.groups.path(host).trim_end_matches('/').to_owned();
    Settings {
        keys: vec![("TAP__WITHIN", within), ("AGENT__HOST", host.to_owned())],
        ..Settings::clear(Tier::Auto)
    }
}

/// How clients reach the server.
struct Case {
    name: &'static str,
    /// The router's port, which leads to the server; the server's own address if there is none.
    port: Option<u16>,
    seen_as: Seen,
}

/// As whom the server sees them.
#[derive(Clone, Copy)]
enum Seen {
    Itself,
    Router,
}

fn everything() -> impl Iterator<Item = (&'static Case, &'static str)> {
    CASES.iter().flat_map(|case| HOSTS.map(|host| (case, host)))
}

const CASES: [Case; 3] = [
    Case {
        name: "routed",
        port: None,
        seen_as: Seen::Itself,
    },
    Case {
        name: "translated",
        port: Some(TRANSLATED),
        seen_as: Seen::Itself,
    },
    Case {
        name: "masqueraded",
        port: Some(MASQUERADED),
        seen_as: Seen::Router,
    },
];

/// `nodes`, and: a host without an agent; a host that has the address of `one`, behind a router that hides it.
fn build() -> Result<Networks> {
    let mut networks = nodes::build()?;
    for name in ["bare", "edge", "three"] {
        networks.add(name)?;
    }
    for node in ["bare", "edge"] {
        let (own, gateway) = (format!("{}/24", address(node)), gateway(node));
        networks.wire(("router", Some(&format!("{gateway}/24"))), (node, Some(&own)))?;
        networks.ip(node, &["route", "add", "default", "via", &gateway])?;
    }
    let (own, gateway) = (format!("{}/24", address("one")), gateway("one"));
    networks.wire(("edge", Some(&format!("{gateway}/24"))), ("three", Some(&own)))?;
    networks.ip("three", &["route", "add", "default", "via", &gateway])?;
    networks.forward("edge")?;
    networks.run("edge", &["nft", HIDES])?;
    Ok(networks)
}

/// What leaves towards the router has the edge's own address.
const HIDES: &str = "table ip t {\nchain after {\ntype nat hook postrouting priority srcnat;\n\
                     oifname \"router\" masquerade\n}\n}\n";
const HOSTS: [&str; 4] = ["one", "two", "three", "bare"];
const WATCHED: [&str; 3] = ["one", "two", "three"];
const ROUNDS: usize = 400;
const SHORT_ROUNDS: usize = 10;
/// Clients while agents end: they have to last as long.
const IN_THE_MIDDLE: usize = 100;
const AT_ONCE: usize = 4;
const A_WHILE: Duration = Duration::from_secs(2);
const TOLD: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);
