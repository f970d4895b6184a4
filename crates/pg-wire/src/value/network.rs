//! Network addresses. Source: PostgreSQL's `src/backend/utils/adt/network.c`, `inet_net_ntop.c`, `mac.c`.

use std::net::Ipv4Addr;

use super::scalar::whole;
use super::{Out, take};

/// `inet` and `cidr`: family, netmask bits, whether it is a `cidr`, length, address.
pub(super) fn inet(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let [family, bits, cidr, length] = take(&mut rest)?;
    let all_bits = match (family, length) {
        (IPV4, 4) => {
            out.print(format_args!("{}", Ipv4Addr::from(whole::<4>(rest)?)))?;
            32
        }
        (IPV6, 16) => {
            ipv6(u128::from_be_bytes(whole(rest)?), out)?;
            128
        }
        _ => return None,
    };
    if bits > all_bits {
        return None;
    }
    if cidr != 0 || bits != all_bits {
        out.print(format_args!("/{bits}"))?;
    }
    Some(())
}

pub(super) fn macaddr(bytes: &[u8], out: &mut Out) -> Option<()> {
    matches!(bytes.len(), 6 | 8).then_some(())?;
    let mut separator = "";
    for byte in bytes {
        out.print(format_args!("{separator}{byte:02x}"))?;
        separator = ":";
    }
    Some(())
}

/// As `inet_net_ntop_ipv6` does: the first longest run of two or more zero words is `::`, and what looks like an IPv4
/// address inside has its form (which `Ipv6Addr` does for fewer addresses).
fn ipv6(address: u128, out: &mut Out) -> Option<()> {
    let words: [u16; 8] = std::array::from_fn(|index| (address >> (112 - 16 * index)) as u16);
    let (mut start, mut length) = (0, 0);
    for from in 0..words.len() {
        let zeros = words.iter().skip(from).take_while(|&&word| word == 0).count();
        if zeros > length {
            (start, length) = (from, zeros);
        }
    }
    if length < 2 {
        (start, length) = (words.len() + 1, 0);
    }
    let last = words.last().copied().unwrap_or_default();
    let inside = start == 0
        && (length == 6 || (length == 7 && last != 1) || (length == 5 && words.get(5) == Some(&0xffff)));
    for (index, word) in words.iter().enumerate() {
        if (start..start + length).contains(&index) {
            if index == start {
                out.push(":");
            }
            continue;
        }
        if index != 0 {
            out.push(":");
        }
        if index == 6 && inside {
            return out.print(format_args!("{}", Ipv4Addr::from(address as u32)));
        }
        out.print(format_args!("{word:x}"))?;
    }
    if start + length == words.len() {
        out.push(":");
    }
    Some(())
}

/// `PGSQL_AF_INET`, whatever `AF_INET` is on the server's system.
const IPV4: u8 = 2;
/// `PGSQL_AF_INET6`.
const IPV6: u8 = 3;
