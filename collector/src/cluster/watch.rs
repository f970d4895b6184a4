//! The watch of an API server.
//!
//! Owns how it is reached, and the way from its words to the directory. Lists, resuming behind the newest word, bookmarks, what
//! to do where that is too old, and waiting between attempts are `kube`'s; the token is read again by it when it changes. Asked for
//! is what names need: pods, and of replica sets and jobs the metadata alone.

use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use cluster::Middle;
use futures::StreamExt as _;
use k8s_openapi::api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{
    Cluster,
    object::Read,
    sighting::{controller, sighting, uid, uid_of_cgroups},
};
use crate::{config::KubernetesConfig, log};

/// Hears what an API server says; never ends.
pub(super) async fn watch(cluster: Arc<Cluster>) {
    let client = loop {
        match client(&cluster.config).await {
            Ok(client) => break client,
            Err(error) => {
                cluster.metrics.cluster_errors.inc();
                tracing::error!(
                    error = format!("{error:#}"),
                    "the cluster's API server cannot be asked, so pods have no names; tried again in {} s",
                    AGAIN.as_secs()
                );
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    hear(&cluster, client).await;
}

/// Hears what this one says.
pub(super) async fn hear(cluster: &Cluster, client: Client) {
    tokio::join!(
        pods(cluster, client.clone()),
        owners::<ReplicaSet>(cluster, client.clone(), Middle::ReplicaSet),
        owners::<Job>(cluster, client, Middle::Job),
        forget(cluster),
    );
}

async fn client(config: &KubernetesConfig) -> anyhow::Result<Client> {
    let found = match &config.kubeconfig {
        Some(file) => {
            let unusable = || format!("{} (kubernetes.kubeconfig)", file.display());
            let read = Kubeconfig::read_from(file).with_context(unusable)?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(read, &options)
                .await
                .with_context(unusable)?
        }
        None => kube::Config::incluster()
            .context("this is no pod with a service account's token (kubernetes.in_cluster)")?,
    };
    connected(found, SILENCE)
}

/// One that notices when the server says nothing any more, and says so.
pub(super) fn connected(mut config: kube::Config, silence: Duration) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(silence);
    // A connection that was idle for a while is not silent.
    config.reset_reader_on_write = true;
    // A server that is overloaded or starting is one that is not heard; when to ask again is said below.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn pods(cluster: &Cluster, client: Client) {
    let api: Api<Read<Pod>> = Api::all(client);
    let mut words = pin!(watcher(api, asked()).backoff(Waits::default()));
    while let Some(word) = words.next().await {
        let Some(word) = heard(cluster, "pods", word) else {
            cluster.hear(cluster::Directory::interrupted);
            continue;
        };
        let listed = matches!(word, Event::InitApply(_));
        match word {
            Event::Init => cluster.hear(|directory, _| directory.begin()),
            Event::InitDone => cluster.hear(cluster::Directory::finish),
            Event::Apply(read) | Event::InitApply(read) => {
                let Some(sighting) = read.object().and_then(|pod| sighting(pod, &cluster.config)) else {
                    cluster.metrics.refused_pods.inc();
                    continue;
                };
                cluster.hear(|directory, now| cluster.count(directory.see(&sighting, listed, now)));
            }
            Event::Delete(read) => {
                if let Some(uid) = uid_of_cgroups(read.meta()) {
                    // What it ended with is the newest word on its end.
                    let last = read.object().and_then(|pod| sighting(pod, &cluster.config));
                    cluster.hear(|directory, now| {
                        let is_over = directory.by_uid(&uid).is_some_and(|pod| pod.gone().is_some());
                        if let Some(last) = last.as_ref().filter(|_| !is_over) {
                            directory.see(last, false, now);
                        }
                        directory.gone(uid, now);
                    });
                }
            }
        }
    }
}

async fn owners<K>(cluster: &Cluster, client: Client, middle: Middle)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<Read<PartialObjectMeta<K>>> = Api::all(client);
    let mut words = pin!(watcher(api, asked()).backoff(Waits::default()));
    while let Some(word) = words.next().await {
        let Some(word) = heard(cluster, middle.kind(), word) else {
            continue;
        };
        match word {
            Event::Init => cluster.hear(|directory, _| directory.owners(middle).begin()),
            Event::InitDone => cluster.hear(|directory, now| directory.owners(middle).finish(now)),
            Event::Apply(read) | Event::InitApply(read) => {
                if let Some(object) = read.object()
                    && let Some(uid) = uid(&object.metadata)
                {
                    let owner = controller(&object.metadata);
                    let owner = owner.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
                    cluster.hear(|directory, _| {
                        directory.see_owner(middle, uid, owner);
                    });
                }
            }
            Event::Delete(read) => {
                if let Some(uid) = uid(read.meta()) {
                    cluster.hear(|directory, now| directory.owners(middle).gone(uid, now));
                }
            }
        }
    }
}

fn asked() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_S)
}

/// A word, if it is one.
fn heard<K>(cluster: &Cluster, what: &str, word: watcher::Result<Event<K>>) -> Option<Event<K>> {
    match word {
        Ok(word) => {
            if matches!(word, Event::Init) {
                cluster.metrics.cluster_lists.inc();
            }
            let seconds = log::unix_ns() / 1_000_000_000;
            cluster.metrics.cluster_heard.set(super::signed(seconds));
            Some(word)
        }
        Err(error) => {
            cluster.metrics.cluster_errors.inc();
            tracing::warn!(
                error = error.to_string(),
                what,
                "the cluster's API server broke off; it is asked again (it must let the collector list and watch pods, replicasets.apps and jobs.batch)"
            );
            None
        }
    }
}

/// How long to wait between attempts: as `kube` has it, but never so long that a server that is back is not heard for a while.
#[derive(Default)]
struct Waits(DefaultBackoff);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Waits {
    fn reset(&mut self) {
        self.0.reset();
    }
}

async fn forget(cluster: &Cluster) {
    loop {
        tokio::time::sleep(FORGET).await;
        cluster.hear(|directory, now| {
            directory.settle(now);
            directory.forget(now);
        });
    }
}

/// How long to wait before looking again for a token or a configuration.
const AGAIN: Duration = Duration::from_secs(30);

/// Sessions get their names within ten seconds of the server's being back; one collector that asks so often is nobody's load.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// How long a watch lasts. The server ends it then, and says something two seconds before (a bookmark), so a watch that is silent for
/// longer is none; `kube` asks for the next one behind the last word.
pub(super) const WATCH_S: u32 = 15;

/// How long the server may say nothing. Shorter than `kube` itself waits for the end of a watch (five seconds behind it), which it
/// would tell nobody of; longer than a page of a list takes.
pub(super) const SILENCE: Duration = Duration::from_secs(18);

/// How long it may take to reach it, TLS included. This and the silence are less than `cluster::LATE_NS`.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How often pods are forgotten that went too long ago, and breaks are over in a cluster that says nothing.
const FORGET: Duration = Duration::from_secs(10);
