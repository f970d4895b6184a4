//! Network addresses. Source: `network_in`; equality is that of address and netmask (`network_cmp_internal`).

use std::net::IpAddr;

/// The address, and the bits of its netmask if it has any.
pub(super) fn inet(text: &str) -> Option<String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    // Abbreviations (`10.1/16`) and octets with zeros in front are refused by this parser.
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => all,
        Some(bits) if (1..=3).contains(&bits.len()) && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            bits.parse::<u32>().ok().filter(|bits| *bits <= all)?
        }
        Some(_) => return None,
    };
    Some(format!("{address}/{bits}"))
}
