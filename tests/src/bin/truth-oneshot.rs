//! The shortest-lived client that does real work: connect, a few statements, exit.
//!
//! usage: truth-oneshot PROGRAM simple|extended (connection settings come from the PG* environment)

use anyhow::{Context, Result, bail};
use tokio_postgres::{Config, NoTls};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("the program's name")?;
    let protocol = arguments.next().context("simple or extended")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&program, &protocol))
}

async fn run(program: &str, protocol: &str) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let mut config = Config::new();
    config
        .host(variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .user(variable("PGUSER")?);
    config
        .password(variable("PGPASSWORD")?)
        .dbname(variable("PGDATABASE")?);
    let (client, connection) = config.connect(NoTls).await.context("connecting")?;
    let connection = tokio::spawn(connection);
    match protocol {
        "simple" => {
            client
                .batch_execute(&format!(
                    "SELECT count(*) FROM customers /* program={program} */; \
                     UPDATE customers /* program={program} */ SET region = 'west' WHERE id IN (1, 2)"
                ))
                .await?;
            client
                .batch_execute(&format!(
                    "SELECT email FROM customers WHERE id < 4 /* program={program} */"
                ))
                .await?;
        }
        "extended" => {
            let text = format!("SELECT id, email FROM customers WHERE id < $1 /* program={program} */");
            client.query(&text, &[&5_i32]).await?;
            let text =
                format!("INSERT INTO orders (customer, amount) VALUES ($1, 3) /* program={program} */");
            client.execute(&text, &[&7_i32]).await?;
        }
        other => bail!("{other}: simple or extended"),
    }
    drop(client);
    connection.await??;
    Ok(())
}
