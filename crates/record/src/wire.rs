//! The protobuf wire format, as far as ordinary events use it.
//!
//! Owns a walk over a message's fields that allocates nothing. Refuses to judge: whatever is out of the ordinary is
//! `None`, and prost decides on it.

/// The value of one field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// A string, a message.
    Bytes(&'a [u8]),
}

/// Hands each field, by its number, to `take`, until that has enough or the message ends.
#[inline]
pub(super) fn walk<'a>(
    mut message: &'a [u8],
    mut take: impl FnMut(u64, Value<'a>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let key = number(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(number(&mut message)?),
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        take(key >> 3, value)?;
    }
    Some(())
}

/// A varint of up to nine bytes: longer ones are negative or wrong, and none of that is ordinary here.
#[inline]
fn number(message: &mut &[u8]) -> Option<u64> {
    // Keys, lengths and most values are one byte.
    if let Some((first, rest)) = message.split_first()
        && *first < 0x80
    {
        *message = rest;
        return Some(u64::from(*first));
    }
    long(message)
}

fn long(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if *first < 0x80 {
            return Some(value);
        }
    }
    None
}
