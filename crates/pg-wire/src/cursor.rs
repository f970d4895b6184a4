//! A checked cursor over the kept part of a message body. "Not there" is a value, because a body may be
//! hostile or cut; nothing here can read past the end.

pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A string up to its NUL, which is consumed; `None` when there is no NUL.
    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(text)
    }

    pub(crate) fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn every_truncation_of_a_record_is_noticed() {
        let whole = [1, 0, 2, 0, 0, 0, 3, b'a', 0, 9];
        let read = |bytes: &[u8]| {
            let mut cursor = Cursor::new(bytes);
            Some((
                cursor.u8()?,
                cursor.i16()?,
                cursor.u32()?,
                cursor.text()?.to_vec(),
                cursor.skip(1)?,
            ))
        };
        assert_eq!(read(&whole), Some((1, 2, 3, b"a".to_vec(), ())));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "cut at {length}");
        }
    }
}
