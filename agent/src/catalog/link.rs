//! The other end of the process that looks at catalogs, in the one that parses: a thread that asks, counts what comes, and puts
//! names in order, so that the main loop only ever takes what is finished.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tap_core::catalog::{
    Column, Function, MAX_COLUMNS, MAX_FUNCTIONS, MAX_GRANTS, MAX_NAME_BYTES, MAX_PATHS, MAX_RELATIONS,
    MAX_ROLES, MAX_SCHEMAS, Names, PathOf, Relation, Role, Schema, Snapshot,
};

use super::protocol::{ASK_BYTES, Ask, SAID_BYTES, Said};
use crate::broker::{Channel, channel::Received};

/// How long a look may take before the process is given up: more than it gives itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a look found.
#[derive(Debug)]
pub struct Found {
    /// What was asked.
    pub ask: Ask,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a look.
#[derive(Debug)]
pub enum Answer {
    /// Names.
    Names {
        /// When it began, in capture time.
        at: u64,
        /// What its connection is called.
        application: String,
        /// `None`: as last time.
        names: Option<Arc<Names>>,
    },
    /// It failed, and why.
    Failed(String),
    /// Nobody looks any more, and why.
    Gone(String),
}

/// Both ends of the thread.
#[derive(Debug)]
pub struct Link {
    asks: mpsc::Sender<Ask>,
    found: mpsc::Receiver<Found>,
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(socket: OwnedFd) -> anyhow::Result<Self> {
        let (asks, asked) = mpsc::channel::<Ask>();
        let (tell, found) = mpsc::channel();
        let mut channel = Channel::new(socket, SAID_BYTES);
        let work = move || {
            for ask in asked {
                let answer = take(&mut channel, &ask);
                let gone = matches!(answer, Answer::Gone(_));
                if tell.send(Found { ask, answer }).is_err() || gone {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(work)
            .context("cannot start a thread")?;
        Ok(Self { asks, found })
    }

    /// Has a catalog looked at. False if nobody does any more.
    pub fn ask(&self, ask: Ask) -> bool {
        self.asks.send(ask).is_ok()
    }

    /// What was found meanwhile.
    pub fn found(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }
}

fn take(channel: &mut Channel, ask: &Ask) -> Answer {
    match answer(channel, ask) {
        Ok(answer) => answer,
        // What it says next could be taken for the answer to another question.
        Err(problem) => Answer::Gone(format!("{problem:#}")),
    }
}

fn answer(channel: &mut Channel, ask: &Ask) -> anyhow::Result<Answer> {
    let until = Instant::now() + PATIENCE;
    channel.send(ask, ASK_BYTES, &[]).context("it cannot be asked")?;
    let (at, application, mut gathered) = match next(channel, until)? {
        Said::Began {
            at,
            application,
            standby,
            path,
        } => {
            let began = Snapshot {
                standby,
                path,
                ..Snapshot::default()
            };
            (at, application, Gathered(began))
        }
        Said::Failed(why) => return Ok(Answer::Failed(why)),
        _ => bail!("it answered something else"),
    };
    loop {
        match next(channel, until)? {
            Said::Failed(why) => return Ok(Answer::Failed(why)),
            Said::Ended { same } => {
                let names = (!same).then(|| Arc::new(Names::new(gathered.0)));
                return Ok(Answer::Names {
                    at,
                    application,
                    names,
                });
            }
            rows => gathered.take(rows)?,
        }
    }
}

fn next(channel: &mut Channel, until: Instant) -> anyhow::Result<Said> {
    loop {
        match channel.receive::<Said>()? {
            Received::Message(said, _) => return Ok(said),
            Received::End => bail!("the process that looks at catalogs has ended"),
            Received::Nothing => {
                let left = until.saturating_duration_since(Instant::now());
                ensure!(
                    !left.is_zero(),
                    "the process that looks at catalogs does not answer"
                );
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], left)?;
            }
        }
    }
}

/// Rows as they come, counted.
struct Gathered(Snapshot);

impl Gathered {
    fn take(&mut self, said: Said) -> anyhow::Result<()> {
        let Snapshot {
            paths,
            schemas,
            roles,
            grants,
            relations,
            columns,
            functions,
            ..
        } = &mut self.0;
        match said {
            Said::Schemas(rows) => extend(schemas, MAX_SCHEMAS, rows, |(oid, name, public)| Schema {
                oid,
                name,
                public,
            })?,
            Said::Roles(rows) => extend(roles, MAX_ROLES, rows, |(oid, name, superuser)| Role {
                oid,
                name,
                superuser,
            })?,
            Said::Grants(rows) => extend(grants, MAX_GRANTS, rows, |row| row)?,
            Said::Paths(rows) => extend(paths, MAX_PATHS, rows, |(of_database, role, path)| PathOf {
                of_database,
                role,
                path,
            })?,
            Said::Relations(rows) => {
                extend(
                    relations,
                    MAX_RELATIONS,
                    rows,
                    |(oid, schema, name, kind, partition)| Relation {
                        oid,
                        schema,
                        name,
                        kind,
                        partition,
                    },
                )?;
            }
            Said::Columns(rows) => {
                extend(columns, MAX_COLUMNS, rows, |(relation, number, name)| Column {
                    relation,
                    number,
                    name,
                })?;
            }
            Said::Functions(rows) => {
                extend(functions, MAX_FUNCTIONS, rows, |(schema, name)| Function {
                    schema,
                    name,
                })?;
            }
            Said::Began { .. } | Said::Ended { .. } | Said::Failed(_) => bail!("it answered something else"),
        }
        let longest = self.0.relations.iter().map(|relation| relation.name.len()).max();
        ensure!(
            longest.unwrap_or(0) <= MAX_NAME_BYTES,
            "a name is longer than any may be"
        );
        Ok(())
    }
}

fn extend<T, U>(into: &mut Vec<U>, most: usize, rows: Vec<T>, read: impl Fn(T) -> U) -> anyhow::Result<()> {
    ensure!(
        into.len() + rows.len() <= most,
        "there are more than {most} rows of one kind"
    );
    into.extend(rows.into_iter().map(read));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answers: Vec<Said>) -> Answer {
        let (channel, theirs) = Channel::pair(ASK_BYTES).expect("a pair");
        let other = thread::spawn(move || {
            let mut channel = channel;
            let ask = loop {
                match channel.receive::<Ask>().expect("a question") {
                    Received::Message(ask, _) => break ask,
                    _ => thread::yield_now(),
                }
            };
            for said in answers {
                channel.send(&said, SAID_BYTES, &[]).expect("room");
            }
            ask
        });
        let ask = Ask {
            entry: 1,
            database: 2,
            whole: true,
        };
        let answer = take(&mut Channel::new(theirs, SAID_BYTES), &ask);
        assert_eq!(other.join().expect("answered"), ask);
        answer
    }

    fn began() -> Said {
        Said::Began {
            at: 7,
            application: "x".to_owned(),
            standby: false,
            path: None,
        }
    }

    #[test]
    fn what_fits_is_taken_and_nothing_else() {
        let schemas = Said::Schemas(vec![(1, "public".to_owned(), true)]);
        let whole = asked(vec![began(), schemas.clone(), Said::Ended { same: false }]);
        assert!(
            matches!(
                whole,
                Answer::Names {
                    at: 7,
                    names: Some(_),
                    ..
                }
            ),
            "{whole:?}"
        );
        let same = asked(vec![began(), Said::Ended { same: true }]);
        assert!(matches!(same, Answer::Names { names: None, .. }), "{same:?}");
        let failed = asked(vec![began(), Said::Failed("why".to_owned())]);
        assert!(
            matches!(&failed, Answer::Failed(why) if why == "why"),
            "{failed:?}"
        );
        for wrong in [
            vec![],
            vec![schemas.clone()],
            vec![began(), began()],
            vec![began(), schemas],
            vec![
                began(),
                Said::Relations(vec![(1, 1, "x".repeat(300), 'r', false)]),
            ],
        ] {
            let answer = asked(wrong);
            assert!(matches!(answer, Answer::Gone(_)), "{answer:?}");
        }
    }
}
