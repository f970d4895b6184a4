//! Whether a header is encoded the one way that it is made, by an agent of any version.
//!
//! Its bytes are what is signed and hashed, so they are never made anew; but two readers must never see different things in them.
//! So: fields in rising order, each once but for those that are lists, numbers in their shortest form, nothing behind them. Fields of a
//! later version pass, lists or not: what they say is kept, and not known here.

/// `BatchHeader.counters`: a message in it, that grows with every version.
const COUNTERS: u64 = 10;

/// `BatchHeader.given_up`: a list of messages. The field with the highest number that is known: of later ones it is not known whether
/// they are lists.
const GIVEN_UP: u64 = 21;

/// Whether these bytes are a header in its one form.
pub(crate) fn is_canonical(header: &[u8]) -> bool {
    fields(header, true).is_some()
}

/// Walks over the fields of a header, or of a message in it.
fn fields(mut bytes: &[u8], header: bool) -> Option<()> {
    let mut last = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let (number, wire_type) = (key >> 3, key & 7);
        let again = header && number == last && number >= GIVEN_UP;
        if number <= last && !again || number > u64::from(u32::MAX >> 3) {
            return None;
        }
        last = number;
        match wire_type {
            // A zero is not encoded, but in a list or where it is not the default: of later fields nobody knows.
            0 => {
                varint(&mut bytes)?;
            }
            1 => {
                take(&mut bytes, 8)?;
            }
            5 => {
                take(&mut bytes, 4)?;
            }
            2 => {
                let length = varint(&mut bytes)?;
                let content = take(&mut bytes, usize::try_from(length).ok()?)?;
                if header && matches!(number, COUNTERS | GIVEN_UP) {
                    fields(content, false)?;
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// A number in its shortest form (protobuf's encoding guide, "Base 128 Varints").
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v1::{BatchHeader, Counters, GivenUp};

    use super::*;

    #[test]
    fn fields_of_a_later_version_pass_and_second_forms_do_not() {
        let counters = Counters {
            segments: 1 << 40,
            ..Counters::default()
        };
        let header = BatchHeader {
            agent_id: "db1".to_owned(),
            sequence: 300,
            counters: Some(counters),
            definition_count: 2,
            ..BatchHeader::default()
        };
        let encoded = header.encode_to_vec();
        assert!(is_canonical(&encoded) && is_canonical(&[]));
        let with = |more: &[u8]| [encoded.as_slice(), more].concat();
        // Fields 100 (a number), 101 (bytes) and 102 (eight bytes).
        assert!(is_canonical(&with(b"\xa0\x06\x07\xaa\x06\x02hi\xb1\x0612345678")));
        for wrong in [
            // Again, out of order, not the shortest, cut off, groups, no field.
            b"\x58\x02".as_slice(),
            b"\x10\x01",
            b"\xa0\x06\x87\x00",
            b"\xa0\x86\x00\x07",
            b"\xaa\x06\x03hi",
            b"\xa3\x06\xa4\x06",
            b"\x00",
            b"\xa0",
        ] {
            assert!(!is_canonical(&with(wrong)), "{wrong:x?}");
        }
        // A counter of a later version, and one that stands there twice.
        for (more, passes) in [(b"\xa0\x06\x07".as_slice(), true), (b"\x08\x01", false)] {
            let counters = [counters.encode_to_vec().as_slice(), more].concat();
            let counters = [&[0x52, counters.len() as u8], counters.as_slice()].concat();
            assert_eq!(is_canonical(&counters), passes);
            assert!(BatchHeader::decode(counters.as_slice()).is_ok());
        }
        for end in 0..encoded.len() {
            // A cut within a field is found; between two of them the rest is another header.
            let cut = BatchHeader::decode(&encoded[..end]);
            assert_eq!(is_canonical(&encoded[..end]), cut.is_ok(), "{end}");
        }
    }
    #[test]
    fn a_header_may_say_of_several_spans_that_they_were_given_up() {
        let span = |from| GivenUp {
            from,
            to: from + 1,
            events: 300,
        };
        let mut header = BatchHeader {
            next_key: vec![7; 32],
            given_up: vec![span(3), span(9), span(200)],
            ..BatchHeader::default()
        };
        assert!(is_canonical(&header.encode_to_vec()));
        let encoded = header.encode_to_vec();
        let key_again = [encoded.as_slice(), b"\xa2\x01\x01k"].concat();
        assert!(!is_canonical(&key_again), "behind a higher number");
        header.given_up.clear();
        let key_twice = [header.encode_to_vec().as_slice(), b"\xa2\x01\x01k"].concat();
        assert!(!is_canonical(&key_twice), "which of both counts?");
        // A span whose numbers have a second form.
        assert!(is_canonical(b"\xaa\x01\x02\x08\x03"));
        assert!(!is_canonical(b"\xaa\x01\x03\x08\x83\x00"));
        assert!(!is_canonical(b"\xaa\x01\x04\x08\x03\x08\x04"));
    }
}
