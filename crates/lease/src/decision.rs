//! Whose a statement is: request and answer looked up in what the pooler did, and what follows.
//!
//! | the request's bytes came from | the answer went to | whose it is |
//! |---|---|---|
//! | memory of client C | C | C's |
//! | memory of client C | somebody else, or several clients' memory | not known, with the candidates |
//! | memory of client C | nobody (it was gone, or there was none) | C's, of a pooler that passes on what it received where it received it |
//! | other memory, right behind a receive from C | C | C's: the pooler wrote it anew |
//! | other memory | nobody | the pooler's own |

use std::ops::Range;

use crate::{Kind, Piece, Receiver, Source, Traffic};

/// What is asked of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where its request stands in the frontend stream.
    pub request: Range<u64>,
    /// Where its answer ends in the backend stream; `None` if there was none.
    pub response_to: Option<u64>,
    /// When the backend read its first byte, in nanoseconds since boot.
    pub began: u64,
    /// It is a query string of the simple protocol.
    pub simple: bool,
    /// Nothing more is waited for.
    pub last: bool,
}

/// Whose a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pooler has not been seen to be done with it.
    NotYet,
    /// A client's.
    Client(Leased),
    /// The pooler's own.
    Own,
    /// Not known.
    Undecided {
        /// Why.
        reason: &'static str,
        /// Sockets of clients whose it may be, as far as that is known.
        candidates: Vec<u64>,
    },
}

/// What shows that a statement is a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Cookie of the pooler's socket with that client.
    pub client: u64,
    /// The request's bytes in that client's stream; empty if the pooler wrote it anew.
    pub range: Range<u64>,
    /// How it is known.
    pub by: By,
}

/// How a lease is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The request was sent from where the client's bytes had been received, and the answer went to the client from where
    /// the server's had been.
    Both,
    /// The same of the request; the answer went to nobody, or there was none.
    Request,
    /// The pooler wrote the request anew, right behind a receive from the client; the answer went to the client.
    Answer,
    /// The process had no other client, and the request begins as what that had just said; the answer went to it.
    Sole,
}

/// Clients that are named as candidates.
const CANDIDATES: usize = 8;

/// Where a request came from.
#[derive(Default)]
struct Request {
    /// Clients whose memory bytes of it came from; the first one's place in its stream.
    by_memory: Vec<u64>,
    range: Range<u64>,
    /// Clients whose turn it was when it was written.
    turns: Vec<Option<u64>>,
    soles: Vec<Option<u64>>,
    logs_in: bool,
    /// It may have come from memory whose filling was not seen.
    unsure: bool,
    unseen: bool,
}

/// Whose a statement is, by what is known of the connection that it was sent over. `lives` says of which clients more may come.
#[must_use]
pub fn decide(kind: Kind, server: &Traffic, lives: impl Fn(u64) -> bool, asked: &Asked) -> Decision {
    if asked.request.is_empty() || !server.knows(asked.request.start) {
        return Decision::undecided(
            "the pooler's connection to the server is older than the tap on it",
            [],
        );
    }
    let over = asked.last || server.is_over();
    let Some(pieces) = server.written(&asked.request) else {
        return if over {
            Decision::undecided("the pooler was not seen to send it", [])
        } else {
            Decision::NotYet
        };
    };
    let request = Request::of(pieces, &asked.request);
    let receiver = match asked.response_to.map(|to| server.receiver(to)) {
        None => None,
        Some(Some(receiver)) => Some(receiver),
        Some(None) if over => None,
        Some(None) => return Decision::NotYet,
    };
    join(kind, server, &lives, asked, &request, receiver)
}

fn join(
    kind: Kind,
    server: &Traffic,
    lives: &impl Fn(u64) -> bool,
    asked: &Asked,
    request: &Request,
    receiver: Option<Receiver>,
) -> Decision {
    let to_client = match receiver {
        Some(Receiver::Client { client, by_memory }) => Some((client, by_memory)),
        _ => None,
    };
    let leased = |client, by| {
        let range = request.range.clone();
        Decision::Client(Leased { client, range, by })
    };
    match (request.by_memory.as_slice(), to_client) {
        _ if request.unseen => Decision::undecided(
            "not all of what the pooler did was seen",
            to_client.map(|to| to.0),
        ),
        // Another program may use one place for all its connections.
        ([client], _) if kind != Kind::PgBouncer && !request.is_turn_of(*client) => Decision::undecided(
            "the pooler was not at the client from whose memory it sent the request",
            to_client.map(|to| to.0).into_iter().chain([*client]),
        ),
        ([client], Some((to, true))) if *client == to => leased(to, By::Both),
        ([client], Some((to, false))) if *client == to => leased(to, By::Request),
        ([client], Some((to, _))) => Decision::undecided(
            "the request came from one client and the answer went to another",
            [*client, to],
        ),
        ([client], None) => leased(*client, By::Request),
        ([], to) => rewritten(kind, server, lives, asked, request, to, receiver),
        (several, _) => Decision::undecided(
            "several clients' bytes are in the request",
            several.iter().copied(),
        ),
    }
}

/// No byte of the request came from where a client's had been received.
fn rewritten(
    kind: Kind,
    server: &Traffic,
    lives: &impl Fn(u64) -> bool,
    asked: &Asked,
    request: &Request,
    to: Option<(u64, bool)>,
    receiver: Option<Receiver>,
) -> Decision {
    let candidates = request.turns.iter().flatten().copied();
    match (kind, to) {
        (Kind::PgBouncer, Some((client, true))) if request.is_turn_of(client) => {
            leased_anew(client, By::Answer)
        }
        (Kind::Pgpool, Some((client, _))) if request.is_soles(client) => leased_anew(client, By::Sole),
        (_, Some((client, _))) => Decision::undecided(
            "the pooler wrote the request itself, and was not at the client that got the answer",
            candidates.chain([client]),
        ),
        (_, None) if request.unsure => {
            Decision::undecided("not all of what the pooler did was seen", candidates)
        }
        // It writes anew what clients prepare, never a query string.
        (Kind::PgBouncer, None)
            if receiver == Some(Receiver::Nobody) && (asked.simple || request.logs_in) =>
        {
            Decision::Own
        }
        (Kind::PgBouncer, None) if receiver == Some(Receiver::Nobody) => {
            // Of a client that goes on to get answers only what the pooler asked itself can be missing.
            let goes_on = |client: u64| {
                asked
                    .response_to
                    .is_some_and(|to| server.passed_later(client, to))
            };
            match request.turns.as_slice() {
                [None] => Decision::Own,
                [Some(client)] if lives(*client) && goes_on(*client) => Decision::Own,
                [Some(client)] if lives(*client) && !asked.last && !server.is_over() => Decision::NotYet,
                _ => Decision::undecided(
                    "the pooler's own, or a client's that was gone before the answer",
                    candidates,
                ),
            }
        }
        _ => Decision::undecided(
            "the pooler wrote the request itself, and nobody got the answer",
            candidates,
        ),
    }
}

fn leased_anew(client: u64, by: By) -> Decision {
    Decision::Client(Leased {
        client,
        range: 0..0,
        by,
    })
}

impl Decision {
    /// Not known, and why; of the candidates the first few are named, each once.
    #[must_use]
    pub fn undecided(reason: &'static str, candidates: impl IntoIterator<Item = u64>) -> Self {
        let mut named = Vec::new();
        for candidate in candidates.into_iter().take(CANDIDATES) {
            if !named.contains(&candidate) {
                named.push(candidate);
            }
        }
        Self::Undecided {
            reason,
            candidates: named,
        }
    }
}

impl Request {
    fn of<'a>(pieces: impl Iterator<Item = &'a Piece>, asked: &Range<u64>) -> Self {
        let mut request = Self::default();
        for piece in pieces {
            add(&mut request.turns, piece.turn);
            match piece.source {
                Source::Client { client, offset } => {
                    let before = asked.start.saturating_sub(piece.range.start);
                    let behind = piece.range.end.saturating_sub(asked.end);
                    let length = piece.range.end - piece.range.start;
                    let range = offset.saturating_add(before)..offset.saturating_add(length - behind);
                    if request.by_memory.is_empty() {
                        request.range = range;
                    } else {
                        request.range.end = range.end;
                    }
                    add(&mut request.by_memory, client);
                }
                Source::Own | Source::Unsure => {
                    request.unsure |= piece.source == Source::Unsure;
                    add(&mut request.soles, piece.sole);
                    request.logs_in |= piece.logs_in;
                }
                Source::Unknown => request.unseen = true,
            }
        }
        request
    }

    /// The thread had looked at this client last, whenever it wrote something of the request.
    fn is_turn_of(&self, client: u64) -> bool {
        !self.turns.is_empty() && self.turns.iter().all(|turn| *turn == Some(client))
    }

    /// The request begins as what the process' only client had just said; what follows it may have been cut otherwise.
    fn is_soles(&self, client: u64) -> bool {
        let all = self.soles.iter().flatten().all(|sole| *sole == client);
        self.soles.first() == Some(&Some(client)) && all
    }
}

fn add<T: PartialEq>(to: &mut Vec<T>, one: T) {
    if !to.contains(&one) {
        to.push(one);
    }
}
