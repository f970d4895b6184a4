//! Whether two texts of a parameter are the same value: the server is asked.
//!
//! Owns that question. A client may send `042` as text for an integer; the server logs the value as its output
//! function prints it under the session's settings, `42`. Neither pgwitness nor this suite may decide that these are
//! equal: both texts go through the type's input and output functions on a server of the same version.

use anyhow::Result;
use tokio_postgres::Client;

use super::params::Doubt;

/// Whether the server prints both texts as the same value of the type. `false` where it refuses one of them, or does
/// not know the type. `server` is a session in the database where the statement ran.
///
/// # Errors
/// When the connection fails.
pub(super) async fn same_value(server: &Client, doubt: &Doubt) -> Result<bool> {
    let Some(oid) = type_of(server, doubt).await else {
        return Ok(false);
    };
    let name = server
        .query_one(&format!("SELECT format_type({oid}, NULL)"), &[])
        .await?;
    let name: Option<String> = name.get(0);
    let Some(name) = name.filter(|name| name != "???" && name != "-") else {
        return Ok(false);
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let sql = format!(
        "SELECT ({}::{name})::text = ({}::{name})::text",
        quoted(&doubt.theirs),
        quoted(&doubt.ours)
    );
    Ok(match server.query_one(&sql, &[]).await {
        Ok(row) => row.get::<_, Option<bool>>(0) == Some(true),
        Err(refused) if refused.as_db_error().is_some() => false,
        Err(failed) => return Err(failed.into()),
    })
}

/// A client need not declare a parameter's type, nor ask what the server made of it: then the server is asked here.
async fn type_of(server: &Client, doubt: &Doubt) -> Option<u32> {
    if doubt.oid != 0 {
        return Some(doubt.oid);
    }
    let statement = server.prepare(doubt.statement.as_ref()?).await.ok()?;
    Some(statement.params().get(doubt.number.checked_sub(1)?)?.oid())
}
