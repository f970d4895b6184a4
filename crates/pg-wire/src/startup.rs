//! The packets that open a connection, which have no type byte: startup, encryption requests, cancel
//! request. And the names of authentication methods, as far as the wire tells them.

use bytes::Bytes;

use crate::capture::{Field, Plan};
use crate::cursor::Cursor;
use crate::framing::UNTYPED_HEADER;

/// Longest startup packet that the server reads (`MAX_STARTUP_PACKET_LENGTH`), without its length field.
pub(crate) const STARTUP_BYTES: usize = 10_000;

/// First byte of a TLS handshake record: since version 17 a client may begin with TLS at once.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

pub(crate) const CANCEL_REQUEST: u32 = code(1234, 5678);
pub(crate) const SSL_REQUEST: u32 = code(1234, 5679);
pub(crate) const GSSENC_REQUEST: u32 = code(1234, 5680);

/// What to keep of an untyped packet; `None` if it is none.
pub(crate) fn plan(length: u32, packet: u32) -> Option<Plan> {
    let length = usize::try_from(length).ok()?;
    if !(UNTYPED_HEADER..=STARTUP_BYTES + 4).contains(&length) {
        return None;
    }
    match packet {
        // The process id alone: the secret key behind it is never copied.
        CANCEL_REQUEST => Some(&[Field::Fixed(4)]),
        SSL_REQUEST | GSSENC_REQUEST => Some(&[]),
        _ if version(packet).0 == 3 => Some(&[Field::Rest(STARTUP_BYTES)]),
        _ => None,
    }
}

/// Major and minor protocol version of a startup packet's code.
pub(crate) fn version(packet: u32) -> (u16, u16) {
    let [a, b, c, d] = packet.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Names and values of a startup packet, in the order sent.
pub(crate) fn parameters(body: &[u8]) -> Vec<(Bytes, Bytes)> {
    let mut cursor = Cursor::new(body);
    let mut parameters = Vec::new();
    while let Some(name) = cursor.text().filter(|name| !name.is_empty()) {
        let Some(value) = cursor.text() else { break };
        parameters.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
    }
    parameters
}

/// What the server says in an Authentication message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    Ok,
    /// It asks for credentials by this method.
    Requested(&'static str),
    /// A further step of a method already named.
    Continued,
}

/// Decodes the head of an Authentication message (manual section "Message Formats").
pub(crate) fn authentication(head: &[u8]) -> Option<Authentication> {
    let mut cursor = Cursor::new(head);
    Some(match cursor.u32()? {
        0 => Authentication::Ok,
        2 => Authentication::Requested("kerberos-v5"),
        // Also LDAP, PAM, RADIUS and BSD: the wire does not tell them apart.
        3 => Authentication::Requested("password"),
        5 => Authentication::Requested("md5"),
        6 => Authentication::Requested("scm-credential"),
        7 => Authentication::Requested("gss"),
        9 => Authentication::Requested("sspi"),
        10 => Authentication::Requested(match cursor.text() {
            Some(mechanism) if mechanism.starts_with(b"SCRAM-SHA-256") => "scram-sha-256",
            Some(b"OAUTHBEARER") => "oauth",
            _ => "sasl",
        }),
        8 | 11 | 12 => Authentication::Continued,
        _ => return None,
    })
}

const fn code(high: u32, low: u32) -> u32 {
    (high << 16) | low
}

#[cfg(test)]
mod tests {
    use super::{Authentication, authentication, parameters, plan};

    #[test]
    fn methods_are_named_as_the_wire_tells() {
        let table: &[(&[u8], Option<Authentication>)] = &[
            (b"\0\0\0\0", Some(Authentication::Ok)),
            (b"\0\0\0\x03", Some(Authentication::Requested("password"))),
            (b"\0\0\0\x05salt", Some(Authentication::Requested("md5"))),
            (b"\0\0\0\x07", Some(Authentication::Requested("gss"))),
            (b"\0\0\0\x09", Some(Authentication::Requested("sspi"))),
            (
                b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
                Some(Authentication::Requested("scram-sha-256")),
            ),
            (
                b"\0\0\0\x0aOAUTHBEARER\0\0",
                Some(Authentication::Requested("oauth")),
            ),
            (b"\0\0\0\x0a\0", Some(Authentication::Requested("sasl"))),
            (b"\0\0\0\x0cv=signature", Some(Authentication::Continued)),
            (b"\0\0\0\x63", None),
            (b"\0\0", None),
        ];
        for (head, expected) in table {
            assert_eq!(authentication(head), *expected, "{head:?}");
        }
    }

    #[test]
    fn cut_parameters_give_the_complete_ones() {
        let body = b"user\0ann\0database\0shop\0\0";
        assert_eq!(parameters(body).len(), 2);
        for cut in 0..body.len() {
            assert!(parameters(&body[..cut]).len() <= 2);
        }
        assert_eq!(parameters(b"user\0ann\0data"), [("user".into(), "ann".into())]);
    }

    #[test]
    fn other_protocols_are_no_startup_packet() {
        assert!(plan(u32::from_be_bytes(*b"GET "), u32::from_be_bytes(*b"/ HT")).is_none());
        assert!(plan(8, 2 << 16).is_none());
        assert!(plan(7, 3 << 16).is_none());
        assert!(plan(10_005, 3 << 16).is_none());
        assert!(plan(10_004, 3 << 16).is_some());
    }
}
