//! The join of a connection's two ends, seen by the agents of two hosts.
//!
//! The pair of first sequence numbers names a connection, whatever translation of addresses lies between: 64 bits that
//! both kernels chose at random for it. Where one end does not know it (a connection older than its agent), both
//! addresses, ports and the time have to do, which holds only where nothing is translated.

use std::net::SocketAddr;

/// One end of a TCP connection, as the agent of its host told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The connecting end's address as this host saw it.
    pub client: SocketAddr,
    /// The accepting end's address as this host saw it.
    pub server: SocketAddr,
    /// First sequence numbers of the connecting and of the accepting end's data; `None` where they are not known.
    pub fingerprint: Option<(u32, u32)>,
    /// When it was opened, in nanoseconds since the Unix epoch by this host's clock; at the accepting end, when it was first
    /// used.
    pub at: u64,
}

/// How two ends belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// By the fingerprint, and both hosts saw the same addresses of the client.
    Fingerprint,
    /// By the fingerprint; the client's address was translated on the way (masquerading).
    Translated,
    /// By both addresses, ports and time alone.
    Pair,
}

impl Match {
    /// As it stands in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::Translated => "translated",
            Self::Pair => "pair",
        }
    }
}

/// The answer to a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<T> {
    /// One, and how.
    One(T, Match),
    /// Several could be meant, and they are not the same workload's.
    Several(usize),
    /// None.
    None,
}

/// What clocks of two hosts may differ by, and a client wait between connecting and its first word: no port is used again
/// so soon with any likelihood that counts.
pub const WINDOW_NS: u64 = 120_000_000_000;

/// The end that connected, for an end that accepted; of several that are the `same` workload's, the first. Pure: the same
/// ends always give the same answer.
///
/// The fingerprint asks nothing of the time but that the connection was opened before it was used: a session may be heard
/// of for the first time when it is hours old.
pub fn join<T: Copy>(
    accepted: &End,
    connected: impl IntoIterator<Item = (T, End)>,
    same: impl Fn(T, T) -> bool,
) -> Joined<T> {
    let (mut exact, mut plain) = (Vec::new(), Vec::new());
    for (name, end) in connected {
        if end.at > accepted.at.saturating_add(WINDOW_NS) {
            continue;
        }
        match (accepted.fingerprint, end.fingerprint) {
            (Some(one), Some(other)) if one == other => {
                let how = if end.client == accepted.client {
                    Match::Fingerprint
                } else {
                    Match::Translated
                };
                exact.push((name, how));
            }
            // Both know it, and it is another connection: the addresses were used again, or are another network's.
            (Some(_), Some(_)) => {}
            // Private addresses stand for many hosts: both ends must agree, so that nothing was translated.
            _ if end.client == accepted.client
                && end.server == accepted.server
                && !end.server.ip().is_unspecified()
                && end.at.abs_diff(accepted.at) <= WINDOW_NS =>
            {
                plain.push((name, Match::Pair));
            }
            _ => {}
        }
    }
    let found = if exact.is_empty() { plain } else { exact };
    match found.as_slice() {
        [] => Joined::None,
        [(name, how), others @ ..] if others.iter().all(|(other, _)| same(*name, *other)) => {
            Joined::One(*name, *how)
        }
        // Two hosts tell of one connection under different names: who can say.
        many => Joined::Several(many.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(client: &str, fingerprint: Option<(u32, u32)>, at: u64) -> End {
        End {
            client: client.parse().expect("an address"),
            server: "10.0.0.9:5432".parse().expect("an address"),
            fingerprint,
            at,
        }
    }

    const AT: u64 = 1_700_000_000_000_000_000;

    fn find(accepted: &End, connected: &[(&'static str, End)]) -> Joined<&'static str> {
        join(accepted, connected.iter().copied(), |one, other| one == other)
    }

    #[test]
    fn the_fingerprint_decides_through_translation() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let same = end("10.0.0.5:5000", Some((7, 9)), AT - 5_000_000);
        let reused = end("10.0.0.5:5000", Some((8, 9)), AT);
        assert_eq!(
            find(&accepted, &[("a", same), ("b", reused)]),
            Joined::One("a", Match::Fingerprint)
        );
        let behind = end("192.168.1.2:40000", Some((7, 9)), AT);
        assert_eq!(
            find(&accepted, &[("c", behind), ("b", reused)]),
            Joined::One("c", Match::Translated)
        );
        // The client connected to a service's address, which was translated to the server's.
        let service = End {
            server: "10.96.0.1:5432".parse().expect("an address"),
            ..same
        };
        assert_eq!(
            find(&accepted, &[("d", service)]),
            Joined::One("d", Match::Fingerprint)
        );
    }

    #[test]
    fn a_session_may_be_heard_of_long_after_it_was_opened_and_never_before() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let day = 86_400_000_000_000;
        let old = end("10.0.0.5:5000", Some((7, 9)), AT - day);
        assert_eq!(
            find(&accepted, &[("a", old)]),
            Joined::One("a", Match::Fingerprint)
        );
        let later = end("10.0.0.5:5000", Some((7, 9)), AT + WINDOW_NS + 1);
        assert_eq!(find(&accepted, &[("a", later)]), Joined::None);
    }

    #[test]
    fn equal_private_addresses_of_two_hosts_are_told_apart() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let other_host = end("10.0.0.5:5000", Some((1, 2)), AT);
        assert_eq!(find(&accepted, &[("b", other_host)]), Joined::None);
    }

    #[test]
    fn several_are_one_only_if_they_are_the_same() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let one = end("10.0.0.5:5000", Some((7, 9)), AT);
        assert_eq!(
            find(&accepted, &[("a", one), ("a", one)]),
            Joined::One("a", Match::Fingerprint)
        );
        assert_eq!(
            find(&accepted, &[("a", one), ("a", one), ("b", one)]),
            Joined::Several(3)
        );
        let pair = end("10.0.0.5:5000", None, AT);
        assert_eq!(
            find(&accepted, &[("b", pair), ("a", one)]),
            Joined::One("a", Match::Fingerprint),
            "what is exact needs no other"
        );
    }

    #[test]
    fn without_a_fingerprint_both_addresses_must_name_only_one() {
        let accepted = end("10.0.0.5:5000", None, AT);
        let one = end("10.0.0.5:5000", Some((1, 2)), AT);
        assert_eq!(find(&accepted, &[("a", one)]), Joined::One("a", Match::Pair));
        assert_eq!(find(&accepted, &[("a", one), ("b", one)]), Joined::Several(2));
        let elsewhere = end("10.0.0.6:5000", None, AT);
        assert_eq!(find(&accepted, &[("a", elsewhere)]), Joined::None);
        let other_server = End {
            server: "10.0.0.8:5432".parse().expect("an address"),
            ..one
        };
        assert_eq!(find(&accepted, &[("a", other_server)]), Joined::None);
        let long_ago = end("10.0.0.5:5000", None, AT - WINDOW_NS - 1);
        assert_eq!(find(&accepted, &[("a", long_ago)]), Joined::None);
        let nowhere = End {
            server: "0.0.0.0:0".parse().expect("an address"),
            ..accepted
        };
        assert_eq!(find(&nowhere, &[("a", nowhere)]), Joined::None);
    }
}
