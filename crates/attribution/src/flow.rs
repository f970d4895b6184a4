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

/// The answer to a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<T> {
    /// One, and how.
    One(T, Match),
    /// Several could be meant.
    Several(usize),
    /// None.
    None,
}

/// What clocks of two hosts may differ by, and a client wait between connecting and its first word: a sequence number
/// is not chosen again so soon with any likelihood that counts.
pub const WINDOW_NS: u64 = 120_000_000_000;

/// The end that connected, for an end that accepted. Pure: the same ends always give the same answer.
pub fn join<T: Copy>(accepted: &End, connected: impl IntoIterator<Item = (T, End)>) -> Joined<T> {
    let (mut exact, mut plain) = (Vec::new(), Vec::new());
    for (name, end) in connected {
        if end.at.abs_diff(accepted.at) > WINDOW_NS {
            continue;
        }
        match (accepted.fingerprint, end.fingerprint) {
            (Some(one), Some(other)) if one == other => exact.push((name, end.client == accepted.client)),
            // Both know it, and it is another connection: the addresses were used again, or are another network's.
            (Some(_), Some(_)) => {}
            // Private addresses stand for many hosts: both ends must agree, so that nothing was translated.
            _ if end.client == accepted.client && end.server == accepted.server => plain.push(name),
            _ => {}
        }
    }
    match (exact.as_slice(), plain.as_slice()) {
        ([(name, true)], _) => Joined::One(*name, Match::Fingerprint),
        ([(name, false)], _) => Joined::One(*name, Match::Translated),
        ([], [name]) => Joined::One(*name, Match::Pair),
        ([], []) => Joined::None,
        // Two agents of one kernel tell of one connection twice, or two kernels chose the same numbers: who can say.
        ([], many) => Joined::Several(many.len()),
        (many, _) => Joined::Several(many.len()),
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

    #[test]
    fn the_fingerprint_decides_through_translation() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let same = end("10.0.0.5:5000", Some((7, 9)), AT - 5_000_000);
        let reused = end("10.0.0.5:5000", Some((8, 9)), AT);
        assert_eq!(
            join(&accepted, [("a", same), ("b", reused)]),
            Joined::One("a", Match::Fingerprint)
        );
        let behind = end("192.168.1.2:40000", Some((7, 9)), AT);
        assert_eq!(
            join(&accepted, [("c", behind), ("b", reused)]),
            Joined::One("c", Match::Translated)
        );
    }

    #[test]
    fn equal_private_addresses_of_two_hosts_are_told_apart() {
        let accepted = end("10.0.0.5:5000", Some((7, 9)), AT);
        let other_host = end("10.0.0.5:5000", Some((1, 2)), AT);
        assert_eq!(join(&accepted, [("b", other_host)]), Joined::None);
    }

    #[test]
    fn without_a_fingerprint_both_addresses_must_name_only_one() {
        let accepted = end("10.0.0.5:5000", None, AT);
        let one = end("10.0.0.5:5000", Some((1, 2)), AT);
        assert_eq!(join(&accepted, [("a", one)]), Joined::One("a", Match::Pair));
        assert_eq!(join(&accepted, [("a", one), ("b", one)]), Joined::Several(2));
        let elsewhere = end("10.0.0.6:5000", None, AT);
        assert_eq!(join(&accepted, [("a", elsewhere)]), Joined::None);
        let other_server = End {
            server: "10.0.0.8:5432".parse().expect("an address"),
            ..one
        };
        assert_eq!(join(&accepted, [("a", other_server)]), Joined::None);
        let long_ago = end("10.0.0.5:5000", None, AT - WINDOW_NS - 1);
        assert_eq!(join(&accepted, [("a", long_ago)]), Joined::None);
    }
}
