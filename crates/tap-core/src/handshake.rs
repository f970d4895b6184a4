//! What a server's side of a TLS handshake says in the clear: version and cipher suite, from its ServerHello (RFC 8446,
//! section 4.1.3; RFC 5246, section 7.4.1.3).
//!
//! Read here and not by a library: it is one message with fields at fixed places, and the libraries that read it bring
//! a parser for all of TLS with them.

/// Bytes that are gathered at most: a ServerHello is some 130 bytes long, and comes first.
const GATHERED: usize = 1024;

/// Collects the front of the server's stream until it is understood.
#[derive(Default)]
pub(crate) struct Handshake {
    front: Vec<u8>,
    over: bool,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: &'static str,
    /// `None` if the suite is none that a server of today offers.
    pub(crate) cipher: Option<&'static str>,
}

impl Handshake {
    /// Takes bytes of the server; what was agreed on comes out once.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Agreed> {
        if self.over {
            return None;
        }
        let room = GATHERED.saturating_sub(self.front.len()).min(bytes.len());
        self.front
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
        let agreed = server_hello(&self.front);
        if agreed.is_some() || self.front.len() >= GATHERED {
            self.over = true;
            self.front = Vec::new();
        }
        agreed
    }
}

/// Content type of handshake records, message type of ServerHello, extension that has TLS 1.3's version.
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;

fn server_hello(bytes: &[u8]) -> Option<Agreed> {
    let mut bytes = Fields(bytes);
    let [HANDSHAKE, _, _, _, _, SERVER_HELLO, 0, long, short] = bytes.take()? else {
        return None;
    };
    // The whole of it: what says the version stands behind all else.
    let mut bytes = Fields(bytes.part(u16::from_be_bytes([long, short]))?);
    let mut version = u16::from_be_bytes(bytes.take()?);
    bytes.skip(32)?; // random
    let [session] = bytes.take()?;
    bytes.skip(usize::from(session))?;
    let cipher = u16::from_be_bytes(bytes.take()?);
    bytes.skip(1)?; // compression
    // Absent from an old server's.
    if let Some(length) = bytes.take() {
        let mut extensions = Fields(bytes.part(u16::from_be_bytes(length))?);
        while let Some(kind) = extensions.take() {
            let length = u16::from_be_bytes(extensions.take()?);
            let body = extensions.part(length)?;
            if u16::from_be_bytes(kind) == SUPPORTED_VERSIONS {
                version = u16::from_be_bytes(*body.first_chunk()?);
            }
        }
    }
    let version = match version {
        0x0301 => "TLSv1",
        0x0302 => "TLSv1.1",
        0x0303 => "TLSv1.2",
        0x0304 => "TLSv1.3",
        _ => return None,
    };
    let cipher = SUITES
        .iter()
        .find(|(number, _)| *number == cipher)
        .map(|(_, name)| *name);
    Some(Agreed { version, cipher })
}

/// IANA's registry "TLS Cipher Suites", as far as OpenSSL 1.1.1 and 3 offer them in their default builds.
const SUITES: [(u16, &str); 34] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0x1304, "TLS_AES_128_CCM_SHA256"),
    (0x1305, "TLS_AES_128_CCM_8_SHA256"),
    (0x002f, "TLS_RSA_WITH_AES_128_CBC_SHA"),
    (0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"),
    (0x0035, "TLS_RSA_WITH_AES_256_CBC_SHA"),
    (0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"),
    (0x003c, "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    (0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256"),
    (0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0x006b, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"),
    (0x009c, "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    (0x009d, "TLS_RSA_WITH_AES_256_GCM_SHA384"),
    (0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xc009, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    (0xc00a, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    (0xc013, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    (0xc014, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    (0xc023, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
    (0xc024, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"),
    (0xc027, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0xc028, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
    (0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    (0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"),
    (0xc0ad, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM"),
    (0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0xccaa, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    fn part(&mut self, length: u16) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(front)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.0 = self.0.get(length..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: u16, cipher: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[2, 9, 9]);
        body.extend_from_slice(&cipher.to_be_bytes());
        body.push(0);
        if !extensions.is_empty() {
            body.extend_from_slice(&u16::try_from(extensions.len()).expect("short").to_be_bytes());
            body.extend_from_slice(extensions);
        }
        let length = u16::try_from(body.len()).expect("short");
        let mut record = vec![HANDSHAKE, 3, 3];
        record.extend_from_slice(&(length + 4).to_be_bytes());
        record.extend_from_slice(&[SERVER_HELLO, 0]);
        record.extend_from_slice(&length.to_be_bytes());
        record.extend(body);
        record
    }

    #[test]
    fn version_and_cipher_are_told_once_in_any_pieces() {
        let old = hello(0x0303, 0xc030, &[]);
        let new = hello(0x0303, 0x1302, &[0, 51, 0, 1, 0, 0, 43, 0, 2, 3, 4]);
        for (bytes, version, cipher) in [
            (old, "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
            (new, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ] {
            let expected = Agreed {
                version,
                cipher: Some(cipher),
            };
            for size in [1, 3, 4096] {
                let mut handshake = Handshake::default();
                let told: Vec<Agreed> = bytes
                    .chunks(size)
                    .filter_map(|piece| handshake.take(piece))
                    .collect();
                assert_eq!(told, [expected], "in pieces of {size}");
                assert_eq!(handshake.take(&bytes), None);
            }
        }
    }

    #[test]
    fn what_is_no_server_hello_says_nothing_and_is_not_kept() {
        let mut handshake = Handshake::default();
        for _ in 0..8 {
            assert_eq!(handshake.take(&[0xff; 300]), None);
        }
        assert!(handshake.over && handshake.front.capacity() == 0);
        let whole = hello(0x0303, 0x1302, &[0, 43, 0, 2, 3, 4]);
        // An extension that is longer than the message.
        let torn = hello(0x0303, 0x1302, &[0, 43, 9, 9]);
        assert_eq!(server_hello(&torn), None);
        assert!(server_hello(&whole).is_some());
        assert_eq!(server_hello(&hello(0x0300, 0x1302, &[])), None);
    }
}
