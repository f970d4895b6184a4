//! What a request says: its body and its parameters.
//!
//! Owns what is answered where they cannot be read: as every other error, an object with `error`.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::api::Failure;

/// The body, as JSON.
pub(super) struct Said<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Json::from_request(request, state).await {
            Ok(Json(said)) => Ok(Self(said)),
            Err(rejected) => Err(Failure::unreadable(rejected.status(), &rejected)),
        }
    }
}

/// The parameters behind the path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(named)) => Ok(Self(named)),
            Err(rejected) => Err(Failure::unreadable(StatusCode::BAD_REQUEST, &rejected)),
        }
    }
}
