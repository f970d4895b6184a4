//! The elements of an array of one dimension: what `= ANY ($1)` compares with. Source: `array_in`, `array_recv`.

use pg_wire::Format;

use crate::family::oid;

/// Elements that are read at the most: as many as values are kept of a statement in other ways. More make it unread.
const ELEMENTS: usize = 65_536;

/// Type and elements of an array; `None` stands for NULL. Nothing where it is no array of one dimension, or of a type that
/// is not known.
#[must_use]
pub fn elements(array_oid: u32, format: Format, bytes: &[u8]) -> Option<(u32, Vec<Option<Vec<u8>>>)> {
    match format {
        Format::Binary => binary(bytes),
        Format::Text => Some((
            ARRAYS
                .iter()
                .find(|pair| pair.0 == array_oid)
                .map_or(0, |pair| pair.1),
            text(std::str::from_utf8(bytes).ok()?)?,
        )),
    }
}

/// Dimensions, whether there are NULLs, the type; for each dimension length and lower bound; then the elements, each
/// behind its length.
fn binary(mut rest: &[u8]) -> Option<(u32, Vec<Option<Vec<u8>>>)> {
    let dimensions = number(&mut rest)?;
    number(&mut rest)?;
    let type_oid = u32::try_from(number(&mut rest)?).ok()?;
    let mut elements = Vec::new();
    match dimensions {
        0 => {}
        1 => {
            let count = usize::try_from(number(&mut rest)?)
                .ok()
                .filter(|count| *count <= ELEMENTS)?;
            number(&mut rest)?;
            for _ in 0..count {
                elements.push(match number(&mut rest)? {
                    -1 => None,
                    length => {
                        let (element, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                        rest = behind;
                        Some(element.to_vec())
                    }
                });
            }
        }
        _ => return None,
    }
    rest.is_empty().then_some((type_oid, elements))
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(i32::from_be_bytes(*number))
}

/// `{a,"b c",NULL}`; a backslash takes the next character as it is.
fn text(written: &str) -> Option<Vec<Option<Vec<u8>>>> {
    let inside = written.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if inside.trim().is_empty() {
        return Some(elements);
    }
    let mut letters = inside.chars().peekable();
    loop {
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        let quoted = letters.next_if_eq(&'"').is_some();
        let mut element = String::new();
        let mut escaped = false;
        if quoted {
            loop {
                match letters.next()? {
                    '"' => break,
                    '\\' => element.push(letters.next()?),
                    letter => element.push(letter),
                }
            }
            while letters.next_if(char::is_ascii_whitespace).is_some() {}
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                match letter {
                    '{' | '}' | '"' => return None,
                    '\\' => {
                        escaped = true;
                        element.push(letters.next()?);
                    }
                    letter => element.push(letter),
                }
            }
            // Blanks behind an escaped character may be its own: not sure.
            if escaped && element.ends_with(|letter: char| letter.is_ascii_whitespace()) {
                return None;
            }
            element.truncate(element.trim_end().len());
            if element.is_empty() {
                return None;
            }
        }
        let is_null = !quoted && !escaped && element.eq_ignore_ascii_case("null");
        elements.push((!is_null).then(|| element.into_bytes()));
        if elements.len() > ELEMENTS {
            return None;
        }
        match letters.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Arrays and their elements (PostgreSQL's `pg_type.dat`).
const ARRAYS: &[(u32, u32)] = &[
    (1000, oid::BOOL),
    (1001, oid::BYTEA),
    (1003, oid::NAME),
    (1005, oid::INT2),
    (1007, oid::INT4),
    (1009, oid::TEXT),
    (1014, oid::BPCHAR),
    (1015, oid::VARCHAR),
    (1016, oid::INT8),
    (1021, oid::FLOAT4),
    (1022, oid::FLOAT8),
    (1028, oid::OID),
    (1041, oid::INET),
    (651, oid::CIDR),
    (1115, oid::TIMESTAMP),
    (1182, oid::DATE),
    (1183, oid::TIME),
    (1185, oid::TIMESTAMPTZ),
    (1231, oid::NUMERIC),
    (2951, oid::UUID),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> Option<Vec<Option<String>>> {
        let (_, elements) = elements(1007, Format::Text, written.as_bytes())?;
        let text = |element: Vec<u8>| String::from_utf8_lossy(&element).into_owned();
        Some(elements.into_iter().map(|element| element.map(text)).collect())
    }

    #[test]
    fn elements_in_text() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("{}"), Some(vec![]));
        assert_eq!(
            read(" { 1 , 22,NULL,\"NULL\", a b }"),
            Some(vec![some("1"), some("22"), None, some("NULL"), some("a b")])
        );
        assert_eq!(
            read(r#"{"a\"b\\",c\,d," x "}"#),
            Some(vec![some("a\"b\\"), some("c,d"), some(" x ")])
        );
        for written in [
            "",
            "1",
            "{1",
            "{1,}",
            "{,1}",
            "{{1},{2}}",
            "{\"a}",
            "{\"a\"b}",
            "[0:1]={1,2}",
            "{a\\",
        ] {
            assert_eq!(read(written), None, "{written}");
        }
    }

    #[test]
    fn elements_in_binary() {
        let mut whole: Vec<u8> = [1, 1, 23, 2, 1, 4, 42, -1]
            .iter()
            .flat_map(|n: &i32| n.to_be_bytes())
            .collect();
        assert_eq!(
            elements(1007, Format::Binary, &whole),
            Some((23, vec![Some(vec![0, 0, 0, 42]), None]))
        );
        for end in 0..whole.len() {
            assert_eq!(
                elements(1007, Format::Binary, &whole[..end]),
                None,
                "cut at {end}"
            );
        }
        whole.push(0);
        assert_eq!(elements(1007, Format::Binary, &whole), None);
        let empty: Vec<u8> = [0, 0, 23].iter().flat_map(|n: &i32| n.to_be_bytes()).collect();
        assert_eq!(elements(1007, Format::Binary, &empty), Some((23, vec![])));
        let huge: Vec<u8> = [1, 0, 23, i32::MAX, 1]
            .iter()
            .flat_map(|n: &i32| n.to_be_bytes())
            .collect();
        assert_eq!(elements(1007, Format::Binary, &huge), None);
    }
}
