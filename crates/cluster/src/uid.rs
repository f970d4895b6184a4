//! The uids of pods and of what owns them.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

/// A uid as the API server gives it (a UUID), or the 32 digits that a kubelet gives to the pods of its own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    bytes: [u8; 16],
    /// 32 digits without dashes, which no UUID of the API server is.
    bare: bool,
}

/// A text that is no uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAUid;

impl Uid {
    /// Whether a kubelet gave it to a pod of its own files, of which the API server has but an image under another uid.
    #[must_use]
    pub const fn is_of_a_kubelet(&self) -> bool {
        self.bare
    }
}

impl FromStr for Uid {
    type Err = NotAUid;

    fn from_str(text: &str) -> Result<Self, NotAUid> {
        let bare = text.len() == 32;
        let mut digits = 0_u128;
        let mut count = 0;
        for (place, byte) in text.bytes().enumerate() {
            if !bare && DASHES.contains(&place) {
                if byte != b'-' {
                    return Err(NotAUid);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(NotAUid)?;
            digits = (digits << 4) | u128::from(digit);
            count += 1;
        }
        if count != 32 || !(bare || text.len() == 36) {
            return Err(NotAUid);
        }
        Ok(Self {
            bytes: digits.to_be_bytes(),
            bare,
        })
    }
}

impl Display for Uid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = u128::from_be_bytes(self.bytes);
        let part = |shift: u32, bits: u32| (digits >> shift) & ((1 << bits) - 1);
        if self.bare {
            return write!(f, "{digits:032x}");
        }
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        )
    }
}

impl Display for NotAUid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("expected a UUID, or 32 hexadecimal digits")
    }
}

impl std::error::Error for NotAUid {}

/// Where the dashes of a UUID stand.
const DASHES: [usize; 4] = [8, 13, 18, 23];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_come_out_as_they_went_in() {
        for text in [
            "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6",
            "00000000-0000-0000-0000-000000000001",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "c5d9f7f01b2c4d5e8f90a1b2c3d4e5f6",
        ] {
            let uid: Uid = text.parse().expect("a uid");
            assert_eq!(uid.to_string(), text);
        }
        let (dashed, bare): (Uid, Uid) = (
            "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6".parse().expect("a uid"),
            "c5d9f7f01b2c4d5e8f90a1b2c3d4e5f6".parse().expect("a uid"),
        );
        assert_ne!(dashed, bare, "a kubelet's is never the API server's");
        assert!(bare.is_of_a_kubelet() && !dashed.is_of_a_kubelet());
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "",
            "c5d9f7f0",
            "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f",
            "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f67",
            "c5d9f7f0_1b2c_4d5e_8f90_a1b2c3d4e5f6",
            "+5d9f7f01b2c4d5e8f90a1b2c3d4e5f6",
            "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5g6",
            "c5d9f7f-01b2c-4d5e-8f90-a1b2c3d4e5f6",
            "é5d9f7f01b2c4d5e8f90a1b2c3d4e5f6",
        ] {
            assert_eq!(text.parse::<Uid>(), Err(NotAUid), "{text}");
        }
    }
}
