//! What every request has to pass, and what every response carries.
//!
//! Owns the defence against web pages from elsewhere: the Host header must name this machine's loopback (DNS
//! rebinding makes a foreign name point here), and the response's headers forbid framing, sniffing and foreign code.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Refuses foreign hosts; adds the security headers to whatever comes back.
pub(super) async fn check(request: Request, next: Next) -> Response {
    // HTTP/1.1 lets the target carry the name too (RFC 9112, section 3.2.2); it must pass as well.
    let target = request.uri().authority().map(|a| a.as_str().to_owned());
    let mut response =
        if host(request.headers()).is_some_and(is_loopback) && target.as_deref().is_none_or(is_loopback) {
            next.run(request).await
        } else {
            (
                StatusCode::MISDIRECTED_REQUEST,
                "this collector answers to localhost only\n",
            )
                .into_response()
        };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

/// The one Host header; none or several are no name at all.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// Whether `host` (`name` or `name:port`) is a loopback name or address.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback());
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_names_and_addresses_pass() {
        for good in [
            "localhost",
            "LOCALHOST:7480",
            "127.0.0.1:7480",
            "127.8.9.1",
            "[::1]",
            "[::1]:7480",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "evil.example",
            "localhost.evil.example:7480",
            "evil.localhost",
            "10.0.0.1:7480",
            "0.0.0.0",
            "[::]:7480",
            "[::1",
            "[::1]x",
            "127.0.0.1:x",
            "localhost:7480:1",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
