//! Whose each statement of the server's log is, by what the clients and the pooler wrote down.
//!
//! Owns the assembly of the witnesses, which know nothing of one another and nothing of pgwitness:
//!
//! - *Anchors.* A ticket that the server handed out to a statement and that a client got; a mark that a client put into a
//!   statement. Both name one statement of one client; what that client sent in the same unit of work (a transaction, a
//!   pipeline) stands beside it in the session, in the journal's order.
//! - *PgBouncer's log* says of each `ReadyForQuery` of a server connection for which client it was. The clients' journals say how
//!   many statements, and which, that client had answered with it. So the session's order and the journals' order are laid
//!   side by side, statement by statement; where a text differs, the witnesses disagree, and that is a fault of the suite.
//! - What no client ever sent is the pooler's own.
//!
//! Whatever has no owner then is `Owner::Unsure`: a single statement, the same of everybody, and no log of the pooler.
//! Pure.

use super::bouncer_log::{Answer, BouncerLog, Place as From};
use super::journal::{Group, Journals, Place, mark};
use super::server_log::Session;

/// Who sent a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A connection of the journals.
    Client(usize),
    /// A program that keeps no journal, by the mark in its texts.
    Program(String),
    /// The pooler itself.
    Pooler,
    /// One of the clients that sent this text.
    Unsure,
}

/// The owners of a session's statements, in their order.
pub(super) type Owners = Vec<Owner>;

/// What the witnesses say together.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// For each session.
    pub(super) owners: Vec<Owners>,
    /// Where they contradict one another. There must be none.
    pub(super) disagreements: Vec<String>,
    /// Statements that are named by the pooler's log, and by an anchor too.
    pub(super) confirmed: u64,
    /// By the pooler's log alone.
    pub(super) by_log: u64,
    /// By an anchor alone.
    pub(super) by_anchor: u64,
}

/// Puts the witnesses together.
pub(super) fn assemble(journals: &Journals, sessions: &[Session], log: Option<&BouncerLog>) -> Truth {
    let mut truth = Truth::default();
    let mut logged = vec![None; sessions.len()];
    if let Some(log) = log {
        let named = by_log(journals, sessions, log, &mut truth);
        for (session, owners) in named {
            if let Some(place) = logged.get_mut(session) {
                *place = Some(owners);
            }
        }
    }
    for (session, logged) in sessions.iter().zip(logged) {
        let anchored = anchors(journals, session, &mut truth);
        let logged = logged.unwrap_or_default();
        let owners = session.statements.iter().enumerate().map(|(index, said)| {
            let by_anchor = anchored.get(index).cloned().flatten();
            let by_log = logged.get(index).cloned();
            match (by_anchor, by_log) {
                (Some(one), Some(other)) if one == other => {
                    truth.confirmed += 1;
                    one
                }
                (Some(one), Some(other)) => {
                    let text = super::short(&said.text);
                    truth.disagreements.push(format!(
                        "statement {index} of backend {}, {text}: {one:?} by its anchor, {other:?} by the pooler's log",
                        session.pid
                    ));
                    Owner::Unsure
                }
                (Some(one), None) => {
                    truth.by_anchor += 1;
                    one
                }
                (None, Some(one)) => {
                    truth.by_log += 1;
                    one
                }
                (None, None) if journals.texts.contains(&said.text) => Owner::Unsure,
                (None, None) => Owner::Pooler,
            }
        });
        let owners = owners.collect();
        truth.owners.push(owners);
    }
    truth
}

/// By tickets and marks, and what stands beside them in the same unit.
fn anchors(journals: &Journals, session: &Session, truth: &mut Truth) -> Vec<Option<Owner>> {
    let mut owners: Vec<Option<Owner>> = vec![None; session.statements.len()];
    for (index, said) in session.statements.iter().enumerate() {
        let place = match said.ticket {
            Some(ticket) => journals.of_ticket(ticket),
            None => journals.of_mark(&said.text, &said.params),
        };
        let Some(place) = place else {
            // A program without a journal marks each of its texts with its name.
            let name = mark(&said.text).and_then(|mark| mark.strip_suffix('.'));
            if let (Some(name), Some(owner)) = (name, owners.get_mut(index)) {
                *owner = Some(Owner::Program(name.to_owned()));
            }
            continue;
        };
        for at in unit_around(journals, session, place, index) {
            let owner = Some(Owner::Client(place.connection));
            match owners.get_mut(at) {
                Some(other) if other.is_some() && *other != owner => {
                    truth.disagreements.push(format!(
                        "statement {at} of backend {} has anchors of two clients",
                        session.pid
                    ));
                }
                Some(slot) => *slot = owner,
                None => {}
            }
        }
    }
    owners
}

/// Where the statements of an anchored one's unit are; the anchored one alone, if the session's order is another than the
/// journal's.
fn unit_around(journals: &Journals, session: &Session, place: Place, index: usize) -> std::ops::Range<usize> {
    let alone = index..index + 1;
    let Some(groups) = journals.connections.get(place.connection).map(|one| &one.groups) else {
        return alone;
    };
    let Some(unit) = groups.get(place.group).map(|group| group.unit) else {
        return alone;
    };
    let (mut texts, mut before) = (Vec::new(), 0);
    for (number, group) in groups.iter().enumerate().filter(|(_, group)| group.unit == unit) {
        if group.ran.is_none() {
            return alone;
        }
        if number < place.group {
            before += group.begun().len();
        }
        texts.extend(group.begun());
    }
    let Some(start) = index.checked_sub(before + place.statement) else {
        return alone;
    };
    let there = session
        .statements
        .get(start..start + texts.len())
        .unwrap_or_default();
    let equal =
        there.len() == texts.len() && there.iter().zip(&texts).all(|(said, text)| said.text == **text);
    match equal && start <= index && index < start + texts.len() {
        true => start..start + texts.len(),
        false => alone,
    }
}

/// By the pooler's log: for each session that it knows, the owners as far as both go.
fn by_log(
    journals: &Journals,
    sessions: &[Session],
    log: &BouncerLog,
    truth: &mut Truth,
) -> Vec<(usize, Vec<Owner>)> {
    let clients = clients(journals, log);
    let mut named = Vec::new();
    let mut free: Vec<usize> = (0..sessions.len()).collect();
    for server in &log.servers {
        let of_port = |session: &Session| server.port.is_some() && session.from == server.port;
        let candidates: Vec<usize> = match server.port {
            // Ports are used again: the earliest that is left, in the order of the log.
            Some(_) => free
                .iter()
                .copied()
                .filter(|index| sessions.get(*index).is_some_and(of_port))
                .take(1)
                .collect(),
            None => free
                .iter()
                .copied()
                .filter(|index| sessions.get(*index).is_some_and(|session| session.from.is_none()))
                .collect(),
        };
        let walks = candidates.into_iter().filter_map(|index| {
            let session = sessions.get(index)?;
            Some((index, walk(journals, session, &server.answers, &clients)))
        });
        let Some((index, walked)) = walks.max_by_key(|(_, walked)| walked.owners.len()) else {
            continue;
        };
        if let Some(problem) = walked.problem {
            truth.disagreements.push(problem);
        }
        free.retain(|other| *other != index);
        named.push((index, walked.owners));
    }
    named
}

/// The journal's connection of each of the log's clients: the n-th from one address is the n-th there.
fn clients(journals: &Journals, log: &BouncerLog) -> Vec<Option<usize>> {
    let mut seen = std::collections::HashMap::<From, usize>::new();
    let mut places = std::collections::HashMap::<From, Vec<usize>>::new();
    let mut of = |place: From| {
        let all = places.entry(place).or_insert_with(|| match place {
            From::Tcp(port) => journals.from(Some(port), None),
            From::Unix(pid) => journals.from(None, Some(pid)),
        });
        let count = seen.entry(place).or_default();
        let found = all.get(*count).copied();
        *count += 1;
        found
    };
    log.clients.iter().map(|client| of(client.place)).collect()
}

struct Walked {
    owners: Vec<Owner>,
    problem: Option<String>,
}

/// Lays a session's statements beside its answers: the n-th answer of a client is for the n-th group of its journal.
fn walk(
    journals: &Journals,
    session: &Session,
    answers: &[Option<Answer>],
    clients: &[Option<usize>],
) -> Walked {
    let mut owners: Vec<Owner> = Vec::new();
    for (number, answer) in answers.iter().enumerate() {
        let rest = session.statements.get(owners.len()..).unwrap_or_default();
        let Some(Answer { client, nth }) = answer else {
            // Its own: one statement, unless the server was only asked to be ready.
            if rest
                .first()
                .is_some_and(|said| !journals.texts.contains(&said.text))
            {
                owners.push(Owner::Pooler);
            }
            continue;
        };
        let Some(connection) = clients.get(*client).copied().flatten() else {
            // Without a journal: its own mark tells how far it goes.
            let first = rest.first().and_then(|said| mark(&said.text));
            if let Some(name) = first.and_then(|mark| mark.strip_suffix('.')) {
                owners.push(Owner::Program(name.to_owned()));
            }
            continue;
        };
        let one = journals.connections.get(connection);
        let begun = one
            .and_then(|one| one.groups.get(*nth))
            .map_or([].as_slice(), Group::begun);
        let equal =
            begun.len() <= rest.len() && begun.iter().zip(rest).all(|(text, said)| *text == said.text);
        if !equal {
            let text = rest.first().map_or("nothing", |said| said.text.as_str());
            let problem = format!(
                "answer {number} of backend {}: the pooler's log says it is for group {nth} of {}, that is {:?}; the \
                 server ran {}",
                session.pid,
                one.map_or("nobody", |one| one.key.as_str()),
                begun.iter().map(|text| super::short(text)).collect::<Vec<_>>(),
                super::short(text)
            );
            return Walked {
                owners,
                problem: Some(problem),
            };
        }
        owners.extend(begun.iter().map(|_| Owner::Client(connection)));
    }
    Walked {
        owners,
        problem: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bouncer_log::{Client, Server};
    use super::super::journal::Connection;
    use super::super::server_log::Said;
    use super::*;

    fn group(unit: u64, texts: &[&str], tickets: &[u64]) -> Group {
        Group {
            unit,
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
            ran: Some(texts.len()),
            tickets: tickets.to_vec(),
            ..Group::default()
        }
    }

    fn connection(port: u16, groups: Vec<Group>) -> Connection {
        Connection {
            key: format!("p.1.{port}"),
            port: Some(port),
            groups,
            ..Connection::default()
        }
    }

    fn session(texts: &[(&str, Option<u64>)]) -> Session {
        let said = |(text, ticket): &(&str, Option<u64>)| Said {
            text: (*text).to_owned(),
            ticket: *ticket,
            ..Said::default()
        };
        Session {
            from: Some(9),
            statements: texts.iter().map(said).collect(),
            ..Session::default()
        }
    }

    const T: &str = super::super::TICKET;

    fn scene() -> (Journals, Vec<Session>) {
        let journals = Journals::of(vec![
            connection(
                1,
                vec![
                    group(1, &["S"], &[]),
                    group(2, &["BEGIN"], &[]),
                    group(2, &[T], &[7]),
                    group(2, &["S"], &[]),
                ],
            ),
            connection(2, vec![group(1, &["S"], &[])]),
        ]);
        let said = [
            ("SET x", None),
            ("S", None),
            ("S", None),
            ("BEGIN", None),
            (T, Some(7)),
            ("S", None),
        ];
        (journals, vec![session(&said)])
    }

    #[test]
    fn anchors_name_their_whole_unit_and_nothing_else() {
        let (journals, sessions) = scene();
        let truth = assemble(&journals, &sessions, None);
        let one = || Owner::Client(0);
        assert_eq!(
            truth.owners,
            [[Owner::Pooler, Owner::Unsure, Owner::Unsure, one(), one(), one()]]
        );
        assert_eq!((truth.disagreements.len(), truth.by_anchor), (0, 3));
    }

    #[test]
    fn the_poolers_log_tells_equal_statements_apart() {
        let (journals, sessions) = scene();
        let places = [1, 2].map(|port| Client {
            place: From::Tcp(port),
        });
        let answer = |client, nth| Some(Answer { client, nth });
        let mut log = BouncerLog {
            clients: places.to_vec(),
            servers: vec![Server {
                port: Some(9),
                answers: vec![
                    None,
                    answer(1, 0),
                    answer(0, 0),
                    answer(0, 1),
                    answer(0, 2),
                    answer(0, 3),
                ],
            }],
        };
        let truth = assemble(&journals, &sessions, Some(&log));
        let (one, two) = (|| Owner::Client(0), || Owner::Client(1));
        assert_eq!(truth.owners, [[Owner::Pooler, two(), one(), one(), one(), one()]]);
        assert_eq!(
            (truth.confirmed, truth.by_log, truth.disagreements.len()),
            (3, 3, 0)
        );
        // The pooler's log names another client: the journals contradict it.
        log.servers[0].answers[4] = answer(1, 1);
        assert!(
            !assemble(&journals, &sessions, Some(&log))
                .disagreements
                .is_empty()
        );
    }
}
