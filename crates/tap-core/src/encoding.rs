//! In which encoding a client sends its text: the server converts from it (setting `client_encoding`), so the text that
//! it executes is not the bytes on the wire. Follows the setting as the server reports it, and knows for which part of
//! the stream it cannot be sure.
//!
//! Source: manual, "Character Set Support"; names from the server's utils/mb/encnames.c. `encoding_rs` does the
//! conversions; it has the web's tables, which are the server's for all that is in use.

use bytes::Bytes;
use encoding_rs::Encoding;
use pg_wire::{Exchange, Format, Param, Source};

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEncoding {
    /// UTF-8; also where the server does not convert (`SQL_ASCII`), or nothing was reported.
    Utf8,
    /// Each byte is the code point of that number.
    Latin1,
    Other(&'static Encoding),
    /// One that cannot be converted here.
    Unsupported,
}

/// The encodings of one session.
pub(crate) struct Encodings {
    /// In the order of the frontend stream.
    changes: Vec<Change>,
    /// Reported within the requests that are being answered.
    reported: Option<ClientEncoding>,
}

struct Change {
    /// From this offset of the frontend stream on the former encoding is no longer sure,
    from: u64,
    /// and from this one on the new one is.
    until: u64,
    new: ClientEncoding,
}

/// Changes that are remembered, for texts that were prepared before them.
const CHANGES: usize = 16;

impl Encodings {
    pub(crate) fn new() -> Self {
        Self {
            changes: Vec::new(),
            reported: None,
        }
    }

    /// The server reported the setting. `login` if no request was made yet.
    pub(crate) fn report(&mut self, name: &[u8], login: bool) {
        let new = ClientEncoding::named(name);
        if login {
            self.change(0, 0, new);
        } else {
            self.reported = Some(new);
        }
    }

    /// Requests from `from` to `until` were answered. A single query string was converted as a whole, before it ran;
    /// of several messages nobody knows between which of them a setting changed.
    pub(crate) fn answered(&mut self, from: u64, until: u64, single: bool) {
        if let Some(new) = self.reported.take() {
            self.change(if single { until } else { from }, until, new);
        }
    }

    /// Text sent at this offset as UTF-8; `None` if it cannot be told what it says. ASCII is itself in all encodings
    /// that a client can have.
    pub(crate) fn decode(&self, at: u64, text: &Bytes) -> Option<Bytes> {
        if text.is_ascii() {
            return Some(text.clone());
        }
        match self.at(at)? {
            ClientEncoding::Utf8 => Some(text.clone()),
            ClientEncoding::Latin1 => Some(
                text.iter()
                    .map(|&byte| char::from(byte))
                    .collect::<String>()
                    .into(),
            ),
            ClientEncoding::Other(encoding) => {
                let (text, _) = encoding.decode_without_bom_handling(text);
                Some(text.into_owned().into())
            }
            ClientEncoding::Unsupported => None,
        }
    }

    /// Converts what a client sent in an exchange: texts, and values that are written as text.
    pub(crate) fn convert(&self, exchange: &mut Exchange) {
        let sent_at = exchange.request.start;
        exchange.sql = exchange
            .sql
            .as_ref()
            .and_then(|text| self.decode(exchange.sql_at, text));
        for result in &mut exchange.results {
            result.source = result.source.take().and_then(|source| {
                let sql = self.decode(source.sql_at, &source.sql)?;
                Some(Box::new(Source { sql, ..*source }))
            });
        }
        let is_foreign = |param: &Param| param.format == Format::Text && !param.kept.is_ascii();
        if exchange.params.iter().any(is_foreign) {
            exchange.params = exchange
                .params
                .iter()
                .map(|param| match self.decode(sent_at, &param.kept) {
                    _ if !is_foreign(param) => param.clone(),
                    Some(kept) if !param.truncated() => Param {
                        bytes: u32::try_from(kept.len()).ok(),
                        kept,
                        ..param.clone()
                    },
                    _ => Param {
                        kept: Bytes::new(),
                        ..param.clone()
                    },
                })
                .collect();
        }
    }

    /// Whether nothing is ever converted.
    pub(crate) fn is_plain(&self) -> bool {
        self.reported.is_none()
            && self
                .changes
                .iter()
                .all(|change| change.new == ClientEncoding::Utf8)
    }

    fn at(&self, at: u64) -> Option<ClientEncoding> {
        let mut current = ClientEncoding::Utf8;
        for change in &self.changes {
            if at < change.from {
                break;
            }
            if at < change.until {
                return None;
            }
            current = change.new;
        }
        Some(current)
    }

    fn change(&mut self, from: u64, until: u64, new: ClientEncoding) {
        if from == until && self.at(until) == Some(new) {
            return;
        }
        if self.changes.len() >= CHANGES {
            self.changes.remove(0);
            // What was sent before the oldest one that is left is in doubt from now on.
            if let Some(oldest) = self.changes.first_mut() {
                oldest.from = 0;
            }
        }
        self.changes.push(Change { from, until, new });
    }
}

impl ClientEncoding {
    /// By the name that the server reports.
    fn named(name: &[u8]) -> Self {
        use encoding_rs as e;
        let name: String = name
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .map(|byte| char::from(byte.to_ascii_uppercase()))
            .collect();
        Self::Other(match name.as_str() {
            "UTF8" | "UNICODE" | "SQLASCII" | "" => return Self::Utf8,
            "LATIN1" | "ISO88591" => return Self::Latin1,
            "LATIN2" => e::ISO_8859_2,
            "LATIN3" => e::ISO_8859_3,
            "LATIN4" => e::ISO_8859_4,
            // Differs from its Windows code page in control characters only.
            "LATIN5" => e::WINDOWS_1254,
            "LATIN6" => e::ISO_8859_10,
            "LATIN7" => e::ISO_8859_13,
            "LATIN8" => e::ISO_8859_14,
            "LATIN9" => e::ISO_8859_15,
            "LATIN10" => e::ISO_8859_16,
            "ISO88595" => e::ISO_8859_5,
            "ISO88596" => e::ISO_8859_6,
            "ISO88597" => e::ISO_8859_7,
            "ISO88598" => e::ISO_8859_8,
            "WIN1250" => e::WINDOWS_1250,
            "WIN1251" => e::WINDOWS_1251,
            "WIN1252" => e::WINDOWS_1252,
            "WIN1253" => e::WINDOWS_1253,
            "WIN1254" => e::WINDOWS_1254,
            "WIN1255" => e::WINDOWS_1255,
            "WIN1256" => e::WINDOWS_1256,
            "WIN1257" => e::WINDOWS_1257,
            "WIN1258" => e::WINDOWS_1258,
            "WIN866" => e::IBM866,
            "WIN874" => e::WINDOWS_874,
            "KOI8R" => e::KOI8_R,
            "KOI8U" => e::KOI8_U,
            "SJIS" | "SHIFTJIS2004" => e::SHIFT_JIS,
            "EUCJP" | "EUCJIS2004" => e::EUC_JP,
            "EUCKR" | "UHC" => e::EUC_KR,
            "EUCCN" | "GBK" => e::GBK,
            "GB18030" => e::GB18030,
            "BIG5" => e::BIG5,
            _ => return Self::Unsupported,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encodings: &Encodings, at: u64, text: &[u8]) -> Option<String> {
        let text = encodings.decode(at, &Bytes::copy_from_slice(text))?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn text_is_what_the_server_converts_it_to() {
        for (name, bytes, text) in [
            ("UTF8", &b"\xc3\xa9"[..], "é"),
            ("LATIN1", b"\xe9\x80", "é\u{80}"),
            ("LATIN1", b"\xc3\xa9", "Ã©"),
            ("LATIN9", b"\xa4", "€"),
            ("WIN1252", b"\x80", "€"),
            ("KOI8R", b"\xc1", "а"),
            ("SJIS", b"\x83\x5c", "ソ"),
            ("EUC_JP", b"\xa5\xbd", "ソ"),
            ("SQL_ASCII", b"\xc3\xa9", "é"),
        ] {
            let mut encodings = Encodings::new();
            encodings.report(name.as_bytes(), true);
            assert_eq!(decoded(&encodings, 0, bytes).as_deref(), Some(text), "{name}");
        }
        let mut encodings = Encodings::new();
        encodings.report(b"MULE_INTERNAL", true);
        assert_eq!(decoded(&encodings, 0, b"\xe9"), None);
        assert_eq!(decoded(&encodings, 0, b"abc").as_deref(), Some("abc"));
    }

    #[test]
    fn a_change_counts_from_where_it_is_sure() {
        let mut encodings = Encodings::new();
        // A query string at 100 to 150 that sets it, then messages from 200 to 300 that do.
        encodings.report(b"LATIN1", false);
        encodings.answered(100, 150, true);
        encodings.report(b"UTF8", false);
        encodings.answered(200, 300, false);
        let at = |at| decoded(&encodings, at, b"\xc3\xa9");
        assert_eq!(at(100).as_deref(), Some("é"));
        assert_eq!(at(150).as_deref(), Some("Ã©"));
        assert_eq!(at(200), None);
        assert_eq!(at(299), None);
        assert_eq!(at(300).as_deref(), Some("é"));
    }

    #[test]
    fn what_is_forgotten_is_in_doubt() {
        let mut encodings = Encodings::new();
        for step in 0..CHANGES as u64 + 1 {
            let name: &[u8] = if step % 2 == 0 { b"LATIN1" } else { b"UTF8" };
            encodings.report(name, false);
            encodings.answered(step * 10, step * 10 + 5, true);
        }
        assert_eq!(decoded(&encodings, 12, b"\xe9"), None);
        assert_eq!(decoded(&encodings, 165, b"\xe9").as_deref(), Some("é"));
        assert_eq!(encodings.changes.len(), CHANGES);
    }
}
