//! `pgwitness-collector user …`: what an operator says. It writes `<data>/access`; a collector that runs goes by it at once.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Subcommand;

use super::{
    LOCAL, Role,
    token::UserToken,
    users::{User, Users},
};
use crate::{
    since::span,
    trust::{Which, date, unix_s},
};

/// Gives people and programs tokens to ask with, shows who has one, and takes them back.
#[derive(Debug, clap::Args)]
pub struct UserArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints a token, once: only its digest is kept
    Add {
        /// Who it is for: 1 to 64 characters of [a-z0-9.-]; questions are recorded under it
        name: String,
        /// What it opens
        #[arg(long, value_enum)]
        role: Role,
        /// How long the token is good, as in 12h or 90d [default: until it is removed]
        #[arg(long, value_name = "SPAN")]
        expires: Option<String>,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Shows who has a token
    List {
        /// Prints a JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Takes a token back: it opens nothing from now on, and what it has open ends within a second
    Remove {
        /// The user
        name: String,
        #[command(flatten)]
        which: Which,
    },
}

/// Runs `user`.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn user(args: UserArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Add {
            name,
            role,
            expires,
            json,
            which,
        } => {
            ensure!(
                evidence::is_agent_id(&name) && name != LOCAL,
                "{name:?} cannot be a user's name: 1 to 64 characters of [a-z0-9.-], and not {LOCAL:?}"
            );
            let expires_unix_s = expires.as_deref().map(end).transpose()?;
            let token = UserToken::new();
            let user = User {
                name,
                role,
                added_unix_s: unix_s(),
                expires_unix_s,
            };
            Users::in_data(&which.config()?.data).add(&user, &token)?;
            tell(&user, &token, json);
        }
        What::List { json, which } => {
            for user in Users::in_data(&which.config()?.data).all()? {
                if json {
                    println!("{}", serde_json::to_string(&user)?);
                    continue;
                }
                let added = date(user.added_unix_s);
                println!("{}  {}  added {added}  {}", user.name, user.role, until(&user));
            }
        }
        What::Remove { name, which } => {
            let config = which.config()?;
            let others = Users::in_data(&config.data).remove(&name)?;
            println!("{name} is removed");
            if !others
                && config.access.required.is_none()
                && config.access.oidc.is_none()
                && !config.exposed()
            {
                eprintln!(
                    "Nobody is left: whoever is on this host may now ask without a token. To need one all the same, set \
                     access.required = true."
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(user: &User, token: &UserToken, json: bool) {
    let User { name, role, .. } = user;
    if json {
        let expires = user.expires_unix_s.map(date);
        let said =
            serde_json::json!({"name": name, "role": role, "token": token.to_string(), "expires": expires});
        println!("{said}");
        return;
    }
    println!("{token}");
    eprintln!(
        "This is the token of {name} ({role}), {}. It is shown this once. Commands take it from --token-file FILE or PGWITNESS_TOKEN, \
         the page asks for it.",
        until(user)
    );
}

fn until(user: &User) -> String {
    match user.expires_unix_s {
        Some(at) if user.is_good() => format!("until {}", date(at)),
        Some(at) => format!("expired {}", date(at)),
        None => "does not expire".to_owned(),
    }
}

/// The end of a span from now on, in seconds since the Unix epoch.
fn end(text: &str) -> anyhow::Result<u64> {
    let seconds = span(text).ok().and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=MAX_EXPIRES_S).contains(seconds));
    let seconds = seconds.with_context(|| {
        format!("--expires is {text}: it must be like 12h or 90d, and ten years at the most")
    })?;
    Ok(unix_s().saturating_add(seconds))
}

/// Ten years.
const MAX_EXPIRES_S: u64 = 3650 * 86_400;
