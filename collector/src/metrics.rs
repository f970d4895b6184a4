//! The collector's own figures, for Prometheus.
//!
//! Owns names and help texts. Whoever does a thing counts it; `http` serves the text.

use std::sync::Arc;

use axum::http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

pub use crate::alarms::Alarm;
use crate::alarms::Alarms;

/// Counters and gauges, all since this start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Batches made durable.
    pub batches: Counter,
    /// Events in them.
    pub events: Counter,
    /// Bytes of them, compressed, as received.
    pub bytes: Counter,
    /// Times that the evidence log was fsynced.
    pub fsyncs: Counter,
    /// Checkpoints written.
    pub checkpoints: Counter,
    /// Checkpoints that witnesses cosigned.
    pub cosigned: Counter,
    /// Times that a checkpoint did not go out to a witness or a place.
    pub publish_failures: Counter,
    /// Batches received again.
    pub duplicates: Counter,
    /// Batches refused.
    pub refused: Counter,
    /// Alarms: counted by kind, and told.
    pub alarms: Arc<Alarms>,
    /// Agents with an open stream.
    pub connected_agents: Gauge,
    /// Rows handed to the store.
    pub store_rows: Counter,
    /// Queries answered.
    pub queries: Counter,
    /// Requests over HTTP that were refused, by reason.
    pub refused_requests: Family<RefusedLabels, Counter>,
    /// Amendments made.
    pub amendments: Counter,
    /// Ends of connections, and statements, that were forgotten before the other end was told of.
    pub join_forgotten: Counter,
    /// Ends of connections that were not taken in: too large, or too many of one connection.
    pub join_refused: Counter,
    /// Pods that are known, with those that are gone and not forgotten yet.
    pub known_pods: Gauge,
    /// Words on pods that are not kept: too many, unreadable, without a uid, or two under one uid.
    pub refused_pods: Counter,
    /// Times that pods, or what owns them, were listed anew.
    pub cluster_lists: Counter,
    /// Times that the API server did not answer, or broke off.
    pub cluster_errors: Counter,
    /// When it said something last, in Unix seconds.
    pub cluster_heard: Gauge,
    /// 1 while all pods of the cluster are known and what changes is heard.
    pub cluster_is_whole: Gauge,
    /// Entries of the inventory in effect.
    pub inventory_principals: Gauge,
    /// 1 where the inventory's file, as it is now, is not in effect, because it cannot be used.
    pub inventory_unusable: Gauge,
}

/// Labels of a request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Why.
    pub reason: RefusedRequest,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RefusedRequest {
    /// It had no token, or one that opens nothing (401).
    Unauthorized,
    /// It had one whose role is too low (403).
    Forbidden,
    /// Its user has too much running (429).
    TooMany,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            batches: Counter::default(),
            events: Counter::default(),
            bytes: Counter::default(),
            fsyncs: Counter::default(),
            checkpoints: Counter::default(),
            cosigned: Counter::default(),
            publish_failures: Counter::default(),
            duplicates: Counter::default(),
            refused: Counter::default(),
            alarms: Arc::default(),
            connected_agents: Gauge::default(),
            store_rows: Counter::default(),
            queries: Counter::default(),
            refused_requests: Family::default(),
            amendments: Counter::default(),
            join_forgotten: Counter::default(),
            join_refused: Counter::default(),
            known_pods: Gauge::default(),
            refused_pods: Counter::default(),
            cluster_lists: Counter::default(),
            cluster_errors: Counter::default(),
            cluster_heard: Gauge::default(),
            cluster_is_whole: Gauge::default(),
            inventory_principals: Gauge::default(),
            inventory_unusable: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("pgwitness_collector");
        registry.register("batches", "Batches made durable", metrics.batches.clone());
        registry.register("events", "Events made durable", metrics.events.clone());
        registry.register(
            "bytes",
            "Bytes of durable batches, compressed",
            metrics.bytes.clone(),
        );
        registry.register(
            "fsyncs",
            "Times that the evidence log was fsynced",
            metrics.fsyncs.clone(),
        );
        registry.register("checkpoints", "Checkpoints written", metrics.checkpoints.clone());
        registry.register(
            "cosigned",
            "Checkpoints that witnesses cosigned",
            metrics.cosigned.clone(),
        );
        registry.register(
            "publish_failures",
            "Times that a checkpoint did not go out to a witness or a place",
            metrics.publish_failures.clone(),
        );
        registry.register("duplicates", "Batches received again", metrics.duplicates.clone());
        registry.register("refused", "Batches refused", metrics.refused.clone());
        registry.register("alarms", "Alarms by kind", metrics.alarms.counted.clone());
        registry.register(
            "connected_agents",
            "Agents with an open stream",
            metrics.connected_agents.clone(),
        );
        registry.register(
            "store_rows",
            "Rows handed to the store",
            metrics.store_rows.clone(),
        );
        registry.register("queries", "Queries answered", metrics.queries.clone());
        registry.register(
            "refused_requests",
            "Requests over HTTP that were refused, by reason",
            metrics.refused_requests.clone(),
        );
        registry.register(
            "amendments",
            "Sessions named by what another host saw",
            metrics.amendments.clone(),
        );
        registry.register(
            "join_forgotten",
            "Ends of connections, and statements, forgotten before the other end was told of",
            metrics.join_forgotten.clone(),
        );
        registry.register(
            "join_refused",
            "Ends of connections not taken in, because they are too large or too many",
            metrics.join_refused.clone(),
        );
        register_cluster(&mut registry, &metrics);
        registry.register(
            "inventory_principals",
            "Entries of the inventory in effect",
            metrics.inventory_principals.clone(),
        );
        registry.register(
            "inventory_unusable",
            "1: the inventory's file cannot be used as it is now, and what it said before stays in effect",
            metrics.inventory_unusable.clone(),
        );
        metrics.registry = registry;
        metrics
    }
}

fn register_cluster(registry: &mut Registry, metrics: &Metrics) {
    registry.register(
        "known_pods",
        "Pods that are known, with those that are gone and not forgotten yet",
        metrics.known_pods.clone(),
    );
    registry.register(
        "refused_pods",
        "Words on pods that are not kept: too many, unreadable, without a uid, or two under one uid",
        metrics.refused_pods.clone(),
    );
    registry.register(
        "cluster_lists",
        "Times that pods, or what owns them, were listed anew",
        metrics.cluster_lists.clone(),
    );
    registry.register(
        "cluster_errors",
        "Times that the cluster's API server did not answer, or broke off",
        metrics.cluster_errors.clone(),
    );
    registry.register(
        "cluster_heard_seconds",
        "When the cluster's API server said something last, in Unix seconds",
        metrics.cluster_heard.clone(),
    );
    registry.register(
        "cluster_is_whole",
        "1: all pods of the cluster are known, and what changes is heard",
        metrics.cluster_is_whole.clone(),
    );
}

impl Metrics {
    /// All of them in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            // Only a failing writer fails, and a String does not.
            Err(_) => String::new(),
        }
    }

    /// Counts what a request was answered with, if that was a refusal.
    pub(crate) fn refused_request(&self, status: StatusCode) {
        let reason = match status {
            StatusCode::UNAUTHORIZED => RefusedRequest::Unauthorized,
            StatusCode::FORBIDDEN => RefusedRequest::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => RefusedRequest::TooMany,
            _ => return,
        };
        self.refused_requests
            .get_or_create(&RefusedLabels { reason })
            .inc();
    }

    /// Raises an alarm about an agent.
    pub fn alarm(&self, kind: Alarm, agent_id: &str, detail: impl Into<String>) {
        self.alarms.raise(kind, agent_id, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_counted() {
        let metrics = Metrics::default();
        metrics.batches.inc();
        metrics.alarm(Alarm::OtherKey, "db1", "");
        let text = metrics.encode();
        assert!(text.contains("pgwitness_collector_batches_total 1\n"), "{text}");
        assert!(
            text.contains("pgwitness_collector_alarms_total{kind=\"OtherKey\"} 1\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
