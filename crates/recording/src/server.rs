//! Which connections are PostgreSQL's, and which end of one is the server, by what passes. Knows the outermost form of
//! messages only (manual section "Message Formats"), and prefers to overlook a connection over taking a foreign one.

/// Whether a client begins a connection with these bytes; `None` if they are too few to say.
pub(crate) fn begins(front: &[u8]) -> Option<bool> {
    let (&first, &code) = (front.first_chunk::<4>()?, front.get(4..)?.first_chunk::<4>()?);
    let (length, code) = (u32::from_be_bytes(first), u32::from_be_bytes(code));
    // Since version 17 a client may begin with TLS at once, and names the protocol in it.
    if front.starts_with(&[0x16, 3]) {
        return Some(front.windows(ALPN.len()).any(|piece| piece == ALPN));
    }
    Some(match code {
        SSL_REQUEST | GSSENC_REQUEST => length == 8,
        CANCEL_REQUEST => (16..=CANCEL_MOST).contains(&length),
        _ => code >> 16 == 3 && (8..=STARTUP_MOST).contains(&length),
    })
}

/// Whether a packet in the midst of a connection holds requests of a client, from its first byte on.
pub(crate) fn requests(packet: &[u8]) -> bool {
    let Some(last) = last_message(packet, b"QPBEDCSHFXfdc") else {
        return long_text(packet);
    };
    match last {
        (b'Q', text) => text
            .split_last()
            .is_some_and(|(end, text)| *end == 0 && is_text(text)),
        (b'S' | b'X' | b'H', body) => body.is_empty(),
        _ => false,
    }
}

/// Whether a packet in the midst of a connection holds answers of a server, from its first byte to readiness.
pub(crate) fn answers(packet: &[u8]) -> bool {
    let last = last_message(packet, b"123CDEGHIKNRSTVWZAcdnst");
    matches!(last, Some((b'Z', [b'I' | b'T' | b'E'])))
}

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.2 lets keys be 256 bytes long.
const CANCEL_MOST: u32 = 12 + 256;
/// `MAX_STARTUP_PACKET_LENGTH`, and its length field.
const STARTUP_MOST: u32 = 10_004;
const ALPN: &[u8] = b"\x0apostgresql";

/// The last of the whole messages that the packet consists of.
fn last_message<'a>(mut packet: &'a [u8], kinds: &[u8]) -> Option<(u8, &'a [u8])> {
    let mut last = None;
    while let Some((&kind, rest)) = packet.split_first() {
        let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        let body = rest.get(4..length)?;
        if !kinds.contains(&kind) {
            return None;
        }
        last = Some((kind, body));
        packet = rest.get(length..)?;
    }
    last
}

/// Whether this is the front of a Query or Parse message that goes on in the next packet.
fn long_text(packet: &[u8]) -> bool {
    /// Less could be anything.
    const LEAST: usize = 16;
    let Some((&kind @ (b'Q' | b'P'), rest)) = packet.split_first() else {
        return false;
    };
    let Some((length, body)) = rest.split_first_chunk() else {
        return false;
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > 1 << 30 || length <= rest.len() || body.len() < LEAST {
        return false;
    }
    let text = if kind == b'Q' {
        Some(body)
    } else {
        let mut parts = body.splitn(2, |byte| *byte == 0);
        parts.next().filter(|name| is_text(name)).and(parts.next())
    };
    text.is_some_and(|text| text.len() >= LEAST / 2 && is_text(text))
}

/// No control characters, beyond those that SQL is laid out with.
fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| *byte >= b' ' || b"\t\r\n\x0c".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_its_beginning() {
        assert_eq!(begins(b"\0\0\0\x08\x04\xd2\x16\x2f"), Some(true));
        assert_eq!(begins(b"\0\0\0\x08\x04\xd2\x16\x30"), Some(true));
        assert_eq!(begins(b"\0\0\0\x10\x04\xd2\x16\x2e"), Some(true));
        assert_eq!(begins(b"\0\0\0\x29\0\x03\0\0user\0"), Some(true));
        assert_eq!(begins(b"\0\0\0\x29\0\x03\0\x02user\0"), Some(true));
        assert_eq!(begins(b"\x16\x03\x01\x02\0\x01\0\x01 \x0apostgresql"), Some(true));
        for other in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"\x16\x03\x01\x02\0\x01\0\x01h2",
            b"\0\0\0\x08\0\x02\0\0",
        ] {
            assert_eq!(begins(other), Some(false));
        }
        assert_eq!(begins(b"\0\0\0\x08\0\x03\0"), None);
    }

    #[test]
    fn the_midst_is_known_by_whole_messages() {
        for frontend in [
            b"Q\0\0\0\x0dselect 1\0".as_slice(),
            b"P\0\0\0\x08\0\0\0\0S\0\0\0\x04",
            b"X\0\0\0\x04",
            b"Q\0\0\x10\0select a_long_list_of_columns",
            b"P\0\0\x10\0name\0select a_long_list_of_columns",
        ] {
            assert!(requests(frontend) && !answers(frontend), "{frontend:?}");
        }
        let backend = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
        assert!(answers(backend) && !requests(backend));
        for foreign in [
            b"".as_slice(),
            b"Q",
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT /a HTTP/1.1\r\nHost: abcdefghi\r\n",
            b"Z\0\0\0\x05X",
            b"Q\0\0\0\x08\x01\x02\x03\0",
            b"Q\0\0\x10\0\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08",
        ] {
            assert!(!requests(foreign) && !answers(foreign), "{foreign:?}");
        }
    }
}
