//! What every request has to pass, and what every response carries.
//!
//! Owns the defence against web pages from elsewhere: the Host header must name this machine's loopback or a name that the collector has
//! (DNS rebinding makes a foreign name point here), and the response's headers forbid framing, sniffing and foreign code. And who is let in
//! where: a place needs a role, and whoever does not have it is told which one.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    Json,
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::Web;
use crate::access::{Asker, Refusal, Role};

/// Refuses foreign hosts; adds the security headers to whatever comes back, and counts what was refused.
pub(super) async fn check(State(web): State<Web>, request: Request, next: Next) -> Response {
    // HTTP/1.1 lets the target carry the name too (RFC 9112, section 3.2.2); it must pass as well.
    let target = request.uri().authority().map(|a| a.as_str().to_owned());
    let is_ours = |host: &str| is_loopback(host) || web.app.names.hold(host);
    let mut response = if host(request.headers()).is_some_and(is_ours)
        && target.as_deref().is_none_or(is_ours)
    {
        next.run(request).await
    } else {
        (
                StatusCode::MISDIRECTED_REQUEST,
                "this collector does not answer under this name: it takes localhost, what its certificate names, and http.names\n",
            )
                .into_response()
    };
    web.app.metrics.refused_request(response.status());
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

/// Lets in who has the role that a place needs. Whoever is known and has another one asked in vain, which is recorded; strangers are counted
/// only, or they could fill the record.
pub(super) async fn admit(
    State((web, needs)): State<(Web, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let pass = match web.app.access.admit(request.headers()).await {
        Ok(pass) => pass,
        Err(refusal) => return refused(&refusal),
    };
    request.extensions_mut().insert(pass.clone());
    if pass.may(needs) {
        return next.run(request).await;
    }
    let (mut parts, _) = request.into_parts();
    let asked = format!("{} {}", parts.method, parts.uri.path());
    if let Ok(asker) = Asker::from_request_parts(&mut parts, &()).await {
        let mut asked = asker.says("forbidden", asked, web.app.accesses.as_ref());
        asked.answered(None).await;
    }
    let who = pass.who();
    let has = match pass.role() {
        Some(role) => format!("the role of {who} is {role}"),
        None => format!("{who} has no role here"),
    };
    let error = format!("this needs the role {needs}, and {has}");
    let answer = Json(json!({ "error": error, "role": needs }));
    let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
    (
        StatusCode::FORBIDDEN,
        [(header::WWW_AUTHENTICATE, challenge)],
        answer,
    )
        .into_response()
}

/// As RFC 6750, section 3 wants it.
fn refused(refusal: &Refusal) -> Response {
    let answer = Json(json!({ "error": refusal.to_string() }));
    let challenge = match refusal {
        Refusal::Missing => "Bearer",
        Refusal::Wrong(_) => "Bearer error=\"invalid_token\"",
        Refusal::Unavailable(_) => return (StatusCode::SERVICE_UNAVAILABLE, answer).into_response(),
    };
    let challenge = HeaderValue::from_static(challenge);
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, challenge)],
        answer,
    )
        .into_response()
}

/// The one Host header; none or several are no name at all.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// The name or address of `name` or `name:port`; an IPv6 address without its brackets.
pub(super) fn host_name(host: &str) -> Option<&str> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return (port && address.parse::<Ipv6Addr>().is_ok()).then_some(address);
    }
    match host.split_once(':') {
        Some((name, port)) => is_port(port).then_some(name),
        None => Some(host),
    }
}

/// Whether `host` is a loopback name or address.
fn is_loopback(host: &str) -> bool {
    host_name(host).is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
            || name.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback())
    })
}

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
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
