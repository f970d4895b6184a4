//! Values without parts: truth values, whole numbers, text, bytes, bits and system identifiers. Types with rules of
//! their own have files of their own.

use super::types::Kind;
use super::{Out, hexadecimal, take};

pub(super) fn scalar(kind: Kind, bytes: &[u8], out: &mut Out) -> Option<()> {
    match kind {
        // `boolrecv` takes any byte.
        Kind::Bool => out.push(if whole::<1>(bytes)? == [0] { "f" } else { "t" }),
        // A zero byte prints as nothing (`charout`).
        Kind::Char => match whole::<1>(bytes)? {
            [0] => {}
            [byte] if byte.is_ascii() => out.text.push(char::from(byte)),
            // One byte of another encoding.
            _ => return None,
        },
        Kind::Int2 => out.print(format_args!("{}", i16::from_be_bytes(whole(bytes)?)))?,
        Kind::Int4 => out.print(format_args!("{}", i32::from_be_bytes(whole(bytes)?)))?,
        Kind::Int8 => out.print(format_args!("{}", i64::from_be_bytes(whole(bytes)?)))?,
        Kind::Oid => out.print(format_args!("{}", u32::from_be_bytes(whole(bytes)?)))?,
        Kind::Xid8 => out.print(format_args!("{}", u64::from_be_bytes(whole(bytes)?)))?,
        Kind::Text => out.push(std::str::from_utf8(bytes).ok()?),
        Kind::Versioned => match bytes.split_first()? {
            (1, text) => out.push(std::str::from_utf8(text).ok()?),
            _ => return None,
        },
        Kind::Bytea => out.push(&hexadecimal(bytes)),
        Kind::Uuid => uuid(whole(bytes)?, out)?,
        Kind::Bits => bits(bytes, out)?,
        Kind::Lsn => {
            let position = u64::from_be_bytes(whole(bytes)?);
            out.print(format_args!("{:X}/{:X}", position >> 32, position & 0xffff_ffff))?;
        }
        Kind::Tid => {
            let mut rest = bytes;
            let block = u32::from_be_bytes(take(&mut rest)?);
            let offset = u16::from_be_bytes(whole(rest)?);
            out.print(format_args!("({block},{offset})"))?;
        }
        Kind::Snapshot => snapshot(bytes, out)?,
        Kind::Void if bytes.is_empty() => {}
        _ => return None,
    }
    Some(())
}

/// All of the bytes, which must be `N`.
pub(super) fn whole<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn uuid(bytes: [u8; 16], out: &mut Out) -> Option<()> {
    for (index, byte) in bytes.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        out.print(format_args!("{dash}{byte:02x}"))?;
    }
    Some(())
}

/// The number of bits, then the bits, padded to whole bytes.
fn bits(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let count = usize::try_from(i32::from_be_bytes(take(&mut rest)?)).ok()?;
    if rest.len() != count.div_ceil(8) {
        return None;
    }
    let all = rest
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    out.text
        .extend(all.take(count).map(|bit| if bit == 0 { '0' } else { '1' }));
    Some(())
}

/// `xmin:xmax:` and the transactions in progress.
fn snapshot(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let count = usize::try_from(i32::from_be_bytes(take(&mut rest)?)).ok()?;
    let oldest = u64::from_be_bytes(take(&mut rest)?);
    let next = u64::from_be_bytes(take(&mut rest)?);
    if rest.len() != count.checked_mul(8)? {
        return None;
    }
    out.print(format_args!("{oldest}:{next}:"))?;
    let mut separator = "";
    while !rest.is_empty() {
        let running = u64::from_be_bytes(take(&mut rest)?);
        out.print(format_args!("{separator}{running}"))?;
        separator = ",";
    }
    Some(())
}
