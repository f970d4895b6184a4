//! A real subscription: another server is the client.
//!
//! Owns the subscriber's server, which is not tapped. Its workers ask the tapped server in their own ways: replication
//! commands, COPY of the tables, and a stream of changes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

use super::site::{Ran, Site};
use crate::cluster::{Cluster, Witness};
use crate::route::Route;

/// Initial copy, changes, and the end.
pub(super) async fn run(site: &Site<'_>) -> Result<Ran> {
    let way = match site.route(Route::Tcp) {
        Route::Tcp => "host=127.0.0.1 sslmode=disable gssencmode=disable".to_owned(),
        Route::Tls => "host=127.0.0.1 sslmode=require gssencmode=disable".to_owned(),
        Route::Unix => format!("host={}", site.cluster.socket_folder().display()),
        Route::Gss => {
            return Ok(Ran::Unavailable(
                "the subscribing server has no ticket".to_owned(),
            ));
        }
    };
    let mut subscriber = Cluster::init_with(site.cluster.client_binary(""), Witness::Statements)?;
    subscriber.start().await?;
    let there = subscriber.superuser("postgres").await?;
    let here = site.connect().await?;
    let table = "CREATE TABLE wire_s (id int PRIMARY KEY, v text)";
    here.batch_execute(&format!(
        "{table}; INSERT INTO wire_s SELECT g, repeat('s', g % 50) FROM generate_series(1, 3000) g; \
         CREATE PUBLICATION wire_publication FOR TABLE wire_s"
    ))
    .await?;
    there.batch_execute(table).await?;
    there
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION wire_subscription CONNECTION '{way} port={} user={} dbname={} password={}' \
             PUBLICATION wire_publication",
            site.cluster.port(),
            site.role,
            site.role,
            site.cluster.password()
        ))
        .await
        .context("making the subscription")?;
    arrived(&there, "SELECT count(*) = 3000 FROM wire_s").await?;
    here.batch_execute("INSERT INTO wire_s SELECT g, 'later' FROM generate_series(3001, 3500) g")
        .await?;
    here.batch_execute("DELETE FROM wire_s WHERE id <= 100").await?;
    arrived(&there, "SELECT count(*) = 3400 FROM wire_s").await?;
    there
        .batch_execute("DROP SUBSCRIPTION wire_subscription")
        .await
        .context("dropping the subscription")?;
    drop(there);
    subscriber.stop().await?;
    Ok(Ran::Done)
}

async fn arrived(subscriber: &Client, question: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !subscriber.query_one(question, &[]).await?.get::<_, bool>(0) {
        ensure!(Instant::now() < deadline, "the subscriber did not get the rows");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(30);
