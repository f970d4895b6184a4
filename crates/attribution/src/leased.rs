//! What a statement is called once the host of a pooler has told whose bytes it passed on.
//!
//! Owns the words and the confidence. Pure: whoever has the events that an amendment names makes the same attribution of them.
//! Refuses to decide whose it is: that is `lease`'s.

use lease::By;
use proto::v1::{self, Confidence};

/// Of the rules here and in `lease`: raised with every change of what they answer.
pub const LEASE_VERSION: u32 = 2;

/// `Amendment.match` of a client's statements; the method, too.
pub const LEASE: &str = "lease";

/// `Amendment.match` of a pooler's own statements.
pub const OWN: &str = "own";

/// `Amendment.match` of statements of which it is not known.
pub const UNDECIDED: &str = "undecided";

/// `Amendment.match` where the names of a session's statements are taken back, because several poolers lay claim to the
/// connection.
pub const POOLERS: &str = "several poolers";

/// Whose statements are.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// A client's.
    Client {
        /// Its session with the pooler.
        session: &'a str,
        /// Who that is.
        attribution: &'a v1::Attribution,
        /// How it is known.
        by: By,
    },
    /// The pooler's own.
    Own,
    /// Not known.
    Undecided {
        /// Why.
        reason: &'a str,
        /// Sessions whose it may be.
        candidates: &'a [&'a str],
    },
}

impl Whose<'_> {
    /// As in `Amendment.match`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Client { .. } => LEASE,
            Self::Own => OWN,
            Self::Undecided { .. } => UNDECIDED,
        }
    }
}

/// The attribution of statements that a pooler passed on. `seen`: the agent on the pooler's host, and the one on the server's;
/// `pooler`: the pooler's own attribution.
#[must_use]
pub fn leased(seen: (&str, &str), pooler: &v1::Attribution, whose: Whose<'_>) -> v1::Attribution {
    let (at_pooler, at_server) = seen;
    let joined = format!(
        "{at_pooler} saw the pooler's end of the connection, {at_server} the server's: both have the same pair of first \
         sequence numbers"
    );
    let mut hop = v1::Hop {
        name: pooler.principal.clone(),
        role: "pooler".to_owned(),
        confidence: weakest(pooler.confidence),
        process: pooler.process.clone(),
        ..v1::Hop::default()
    };
    match whose {
        Whose::Client {
            session,
            attribution,
            by,
        } => {
            session.clone_into(&mut hop.session);
            let mut named = attribution.clone();
            named.method = LEASE.to_owned();
            named.confidence = weakest(attribution.confidence);
            if named.confidence == i32::from(Confidence::None) {
                named = v1::Attribution {
                    principal: UNKNOWN.to_owned(),
                    kind: 0,
                    ..named
                };
            }
            for fact in &mut named.evidence {
                *fact = format!("{at_pooler}: {fact}");
            }
            for hop in &mut named.hops {
                hop.confidence = weakest(hop.confidence);
            }
            named
                .evidence
                .extend([format!("{at_pooler}: {}", shown(by, session)), joined]);
            named.hops.push(hop);
            named
        }
        Whose::Own => v1::Attribution {
            method: "pooler".to_owned(),
            confidence: weakest(pooler.confidence),
            evidence: vec![
                format!("{at_pooler}: the pooler's own, or its connection's: no client's"),
                joined,
            ],
            ..pooler.clone()
        },
        Whose::Undecided { reason, candidates } => {
            let exe = pooler.process.as_ref().map_or("", |process| &process.exe);
            let may_be = candidates
                .iter()
                .map(|session| format!("{at_pooler}: may be of the pooler's session {session}"));
            v1::Attribution {
                principal: UNKNOWN.to_owned(),
                method: "none".to_owned(),
                reason: format!("passed on by a pooler ({exe}, {}): {reason}", pooler.principal),
                evidence: may_be.chain([joined]).collect(),
                hops: vec![hop],
                ..v1::Attribution::default()
            }
        }
    }
}

/// Two hosts' observations, joined: never surer than that. A level that this version does not know is none.
fn weakest(confidence: i32) -> i32 {
    let known = Confidence::try_from(confidence).unwrap_or(Confidence::None);
    known.min(Confidence::Joined).into()
}

fn shown(by: By, session: &str) -> String {
    match by {
        By::Both => format!(
            "the pooler sent the request from the memory into which it had received it in its session {session}, and the \
             answer to that session from the memory into which it had received that"
        ),
        By::Request => format!(
            "the pooler sent the request from the memory into which it had received it in its session {session}; of the \
             answer that was not seen"
        ),
        By::Answer => format!(
            "the pooler wrote the request anew right behind a receive in its session {session}, and the answer went there"
        ),
        By::Sole => format!("the pooler's process had no client but that of its session {session}"),
    }
}

const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    fn named(principal: &str, confidence: Confidence) -> v1::Attribution {
        v1::Attribution {
            principal: principal.to_owned(),
            kind: v1::PrincipalKind::Unit.into(),
            confidence: confidence.into(),
            method: "tcp-owner".to_owned(),
            evidence: vec!["connect() recorded".to_owned()],
            process: Some(v1::Process {
                pid: 7,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn of(client: &v1::Attribution) -> v1::Attribution {
        let whose = Whose::Client {
            session: "p-1",
            attribution: client,
            by: By::Both,
        };
        leased(("pool", "db"), &named("bouncer", Confidence::Observed), whose)
    }

    #[test]
    fn a_client_keeps_its_name_and_no_more_than_joined() {
        let answer = of(&named("shop", Confidence::Observed));
        assert_eq!(
            (answer.principal.as_str(), answer.method.as_str()),
            ("shop", "lease")
        );
        assert_eq!(answer.confidence, i32::from(Confidence::Joined));
        assert_eq!(
            (answer.hops[0].name.as_str(), answer.hops[0].session.as_str()),
            ("bouncer", "p-1")
        );
        assert!(
            answer.evidence[0].starts_with("pool: connect()"),
            "{:?}",
            answer.evidence
        );
        assert_eq!(
            of(&named("addr", Confidence::Inferred)).confidence,
            i32::from(Confidence::Inferred)
        );
        let strange = of(&v1::Attribution {
            confidence: 99,
            ..named("shop", Confidence::Observed)
        });
        assert_eq!(
            (strange.principal.as_str(), strange.confidence, strange.kind),
            ("unknown", 0, 0)
        );
    }

    #[test]
    fn what_is_the_poolers_or_nobodys_names_no_client() {
        let pooler = named("bouncer", Confidence::Observed);
        let own = leased(("pool", "db"), &pooler, Whose::Own);
        assert_eq!(
            (own.principal.as_str(), own.method.as_str()),
            ("bouncer", "pooler")
        );
        assert_eq!(own.confidence, i32::from(Confidence::Joined));
        let whose = Whose::Undecided {
            reason: "why",
            candidates: &["p-1", "p-2"],
        };
        let undecided = leased(("pool", "db"), &pooler, whose);
        assert_eq!(
            (undecided.principal.as_str(), undecided.confidence),
            ("unknown", 0)
        );
        assert!(undecided.process.is_none() && undecided.reason.ends_with("why"));
        assert_eq!((undecided.evidence.len(), undecided.hops.len()), (3, 1));
    }
}
