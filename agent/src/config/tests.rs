//! Defaults, bounds, and what errors say.

use super::*;

#[test]
fn the_defaults_hold_and_bad_values_are_named() {
    assert_eq!(Config::default().check(), Ok(()));
    let mut config = Config::default();
    config.metrics.listen = "0.0.0.0:9000".parse().ok();
    assert!(
        config
            .check()
            .is_err_and(|error| error.to_string().contains("metrics.listen"))
    );
    let mut config = Config::default();
    for wrong in [
        "http://10.0.0.1:7433",
        "http://127.0.0.1:0",
        "http://127.0.0.1:7433/x",
    ] {
        config.delivery.collectors = vec![wrong.to_owned()];
        assert!(
            config
                .check()
                .is_err_and(|error| error.to_string().contains("delivery.collectors")),
            "{wrong}"
        );
    }
    config.delivery.collectors = vec!["http://[::1]:7433/".to_owned()];
    assert_eq!(config.check(), Ok(()));
    let mut config = Config::default();
    config.spool.max_bytes = 65_535;
    let said = config.check().expect_err("too little").to_string();
    assert!(said.starts_with("spool.max_bytes is 65535: it must be"), "{said}");
    let mut config = Config::default();
    config.delivery.queue_mib = 1000;
    assert_eq!((config.check(), config.memory_mib()), (Ok(()), 1448));
    config.limits.memory_mib = Some(1063);
    let said = config.check().expect_err("too little memory").to_string();
    assert!(
        said.starts_with("limits.memory_mib is 1063: it must be at least 64 more"),
        "{said}"
    );
    config.limits.memory_mib = Some(1064);
    assert_eq!(config.check(), Ok(()));
    config.limits.cpu_percent = Some(0);
    assert!(config.check().is_err());
    let mut config = Config::default();
    assert_eq!(
        (config.sizes(1).processes, config.sizes(1).connections),
        (KEPT, KEPT)
    );
    config.limits.server_processes = Some(12);
    assert_eq!((config.check(), config.sizes(1).processes), (Ok(()), 12));
    config.limits.client_connections = Some(0);
    let said = config.check().expect_err("no room at all").to_string();
    assert!(said.starts_with("limits.client_connections is 0:"), "{said}");
    let mut config = Config::default();
    config.tap.pooler_programs = vec!["our-pooler".to_owned()];
    assert_eq!(config.check(), Ok(()));
    let programs = config.poolers().programs;
    assert!(programs.contains(&"pgbouncer".to_owned()) && programs.contains(&"our-pooler".to_owned()));
    config.tap.poolers = false;
    assert!(config.poolers().programs.is_empty());
    config.tap.pooler_programs = vec!["/usr/sbin/pgbouncer".to_owned()];
    let said = config.check().expect_err("a path").to_string();
    assert!(said.starts_with("tap.pooler_programs is "), "{said}");
    let mut config = Config::default();
    config.agent.id = Some("Not A Name".to_owned());
    assert!(
        config
            .check()
            .is_err_and(|error| error.to_string().contains("agent.id"))
    );
}
#[test]
fn a_part_of_a_host_has_a_name_of_its_own() {
    let mut config = Config::default();
    config.tap.within = Some("/kind/node-1".to_owned());
    let said = config.check().expect_err("two hosts of one name").to_string();
    assert!(said.contains("agent.host"), "{said}");
    config.agent.host = Some("node-1".to_owned());
    assert_eq!(config.check(), Ok(()));
    for wrong in ["", "/", "kind", "/kind/", "/kind/../x", "/a//b"] {
        config.tap.within = Some(wrong.to_owned());
        assert!(config.check().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_collector_can_be_at_a_socket() {
    let mut config = Config::default();
    config.delivery.collectors = vec!["unix:/run/pgwitness/grpc.sock".to_owned()];
    assert_eq!(config.check(), Ok(()));
    for wrong in ["unix:", "unix:grpc.sock"] {
        config.delivery.collectors = vec![wrong.to_owned()];
        assert!(config.check().is_err(), "{wrong:?}");
    }
}

#[test]
fn agents_with_state_of_their_own_have_a_socket_of_their_own() {
    let mut config = Config::default();
    assert_eq!(config.control_socket(), Path::new(CONTROL_SOCKET));
    config.state_dir = "/tmp/one".into();
    assert_eq!(config.control_socket(), Path::new("/tmp/one/control.sock"));
    config.control.socket = Some("/tmp/two".into());
    assert_eq!(config.control_socket(), Path::new("/tmp/two"));
}

#[test]
fn several_collectors_are_each_looked_at() {
    let mut config = Config::default();
    let urls = |count: usize| {
        (1..=count)
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect()
    };
    config.delivery.collectors = urls(8);
    config.delivery.collectors[7] = "https://collector.example:7433".to_owned();
    assert_eq!(config.check(), Ok(()));
    config.delivery.collectors = urls(9);
    let said = config.check().expect_err("too many").to_string();
    assert!(said.starts_with("delivery.collectors is 9:"), "{said}");
    config.delivery.collectors = urls(2);
    config.delivery.collectors[1] = "https://collector.example".to_owned();
    let said = config.check().expect_err("no port").to_string();
    assert!(said.contains("collector.example\""), "{said}");
    config.delivery.collectors = [urls(2), urls(1)].concat();
    let said = config.check().expect_err("one twice").to_string();
    assert!(said.contains("\"http://127.0.0.1:1\" twice"), "{said}");
}
