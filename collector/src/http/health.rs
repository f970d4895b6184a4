//! Metrics and health on an address of their own, for those who watch over the collector and have no business with the record.

use std::sync::Arc;

use axum::{Router, http::header, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// What Prometheus takes the text for.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics` and `/healthz` until the collector stops.
pub(crate) async fn health(listener: TcpListener, metrics: Arc<Metrics>, mut stopped: watch::Receiver<bool>) {
    let shown = move || async move { ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode()) };
    let router = Router::new()
        .route("/metrics", get(shown))
        .route("/healthz", get(async || "ok\n"));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        _ = stopped.wait_for(|stopped| *stopped).await;
    });
    if let Err(error) = served.await {
        tracing::error!(error = %error, "metrics are no longer served at metrics.listen");
    }
}
