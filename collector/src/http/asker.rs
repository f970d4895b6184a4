//! Who makes a request.
//!
//! Owns where its purpose comes from: the header `x-pgwitness-purpose`.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, request::Parts},
};

use crate::access::{Asker, Pass};

/// Why somebody asks: free text.
pub(crate) const PURPOSE: &str = "x-pgwitness-purpose";

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // A place that nobody was let in to has no asker: that would be a fault of the table of places.
        let pass = parts.extensions.get::<Pass>().cloned();
        let pass = pass.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // The port is another one each time.
        let address = address.map_or_else(String::new, |ConnectInfo(address)| address.ip().to_string());
        let purpose = parts
            .headers
            .get(PURPOSE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let text = parts.uri.query().unwrap_or_default().to_owned();
        Ok(Self::new(pass, address, purpose.unwrap_or_default(), text))
    }
}
