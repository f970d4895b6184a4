//! What clients assert, against the server's own word: random programs of `SET`, `set_config`, savepoints, roles and
//! failures, and after each statement that the server lets run, what it says of its settings itself.
//!
//! The bytes of both directions go through the pipeline without a kernel between. With `PGWITNESS_SERVERS` (a folder with
//! one package of a server's programs a version, as `cargo xtask setup` fetches them) every version is asked, with
//! `PGWITNESS_PROGRAMS` so many programs are run on each; a failure names the number that repeats it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

mod program;
mod session;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use pgwitness_tests::cluster::{Cluster, Witness, server_binaries};
use tempfile::TempDir;

use program::{Generator, Kind};
use session::{Compared, Session};

/// Programs that are run on each server, of each kind.
const PROGRAMS: u64 = 300;

#[tokio::test]
async fn settings_are_followed_as_the_server_changes_them() {
    let programs = env::var("PGWITNESS_PROGRAMS").map_or(PROGRAMS, |count| count.parse().unwrap());
    let mut servers = vec![(server_binaries().unwrap(), None)];
    if let Some(folder) = env::var_os("PGWITNESS_SERVERS") {
        servers.extend(unpacked(Path::new(&folder)));
    }
    for (binaries, _copy) in servers {
        let mut cluster = Cluster::init_with(binaries, Witness::Silent).unwrap();
        let conf = cluster.data().join("postgresql.conf");
        let more = fs::read_to_string(&conf).unwrap() + "max_prepared_transactions = 10\n";
        fs::write(&conf, more).unwrap();
        cluster.start().await.unwrap();
        let admin = cluster.superuser("postgres").await.unwrap();
        admin.batch_execute(program::SCHEMA).await.unwrap();
        for kind in [Kind::Seen, Kind::Unseen] {
            let mut compared = Compared::default();
            for seed in 1..=programs {
                compared += run(&cluster, kind, seed);
            }
            println!("{}: {kind:?}: {compared:?}", cluster.version());
            assert!(compared.statements > programs * 10, "{compared:?}");
            assert!(
                compared.end_users > programs * 2 && compared.roles > programs,
                "{compared:?}"
            );
            if kind == Kind::Seen {
                assert_eq!(compared.doubtful, 0, "{compared:?}");
            }
        }
        cluster.stop().await.unwrap();
    }
}

fn run(cluster: &Cluster, kind: Kind, seed: u64) -> Compared {
    let mut generator = Generator::new(seed, kind);
    let socket = cluster
        .socket_folder()
        .join(format!(".s.PGSQL.{}", cluster.port()));
    let mut session = Session::open(&socket, &generator.startup());
    for _ in 0..12 {
        session.exchange(&generator.turn());
    }
    session.compare(
        kind,
        &format!("PGWITNESS seed {seed} {kind:?}, {}", cluster.version()),
    )
}

/// Each version's programs, copied to where the server's account can read them.
fn unpacked(folder: &Path) -> Vec<(PathBuf, Option<TempDir>)> {
    let mut versions: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("native"))
        .filter(|folder| folder.join("bin/postgres").is_file())
        .collect();
    versions.sort();
    versions
        .iter()
        .map(|version| {
            let copy = TempDir::with_prefix("pgwitness-server-").unwrap();
            let copied = Command::new("cp")
                .arg("-a")
                .arg(version.join("."))
                .arg(copy.path())
                .status();
            assert!(copied.unwrap().success());
            fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
            (copy.path().join("bin"), Some(copy))
        })
        .collect()
}
