//! A bucket of S3 as the place of a store.
//!
//! Owns how it is reached, as whom, and whose it is: an object in it names the log that the store is of, so that no two collectors take each
//! other's files for left-overs of their own. Refuses a place that holds something else, and one that keeps what is deleted: what is
//! erased has to be gone.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use futures::{TryStreamExt, future};
use object_store::{
    Certificate, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    PutResult, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential},
    path::Path,
    prefix::PrefixStore,
};

use super::manifest;
use crate::{config::StoreConfig, log::Origin, trust};

/// A bucket, or a part of one.
pub(super) struct Bucket {
    objects: Arc<dyn ObjectStore>,
    /// As errors name it.
    url: String,
}

impl Bucket {
    /// Nothing is asked yet.
    pub(super) fn at(config: &StoreConfig) -> anyhow::Result<Self> {
        let url = config.url.clone().unwrap_or_default();
        let (bucket, prefix) = config
            .bucket()
            .with_context(|| format!("{url:?} is not of the form s3://bucket/prefix"))?;
        let mut options = ClientOptions::new()
            .with_allow_http(config.allow_http)
            .with_timeout(MAX_REQUEST);
        if let Some(file) = &config.ca {
            let unreadable = || format!("cannot read the authorities {} (store.ca)", file.display());
            let pem = std::fs::read(file).with_context(unreadable)?;
            for authority in Certificate::from_pem_bundle(&pem).with_context(unreadable)? {
                options = options.with_root_certificate(authority);
            }
        }
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(RetryConfig {
                max_retries: MAX_RETRIES,
                retry_timeout: RETRY_FOR,
                ..RetryConfig::default()
            });
        if let Some(endpoint) = &config.endpoint {
            // By the name that is the strongest among those that the environment may have.
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(file) = &config.credentials {
            let text = trust::private("credentials (store.credentials)", file)?;
            let mut lines = text.lines().map(str::trim);
            let (id, secret) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            ensure!(
                !id.is_empty() && !secret.is_empty(),
                "{} does not hold the access key's id and the secret, a line each",
                file.display()
            );
            // Over whatever the environment has: half of each would be nobody's.
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: id.to_owned(),
                secret_key: secret.to_owned(),
                token: None,
            })));
        }
        let bucket = builder
            .build()
            .with_context(|| format!("{url} cannot be asked: see [store] and the variables AWS_…"))?;
        Ok(Self {
            objects: Arc::new(PrefixStore::new(bucket, prefix)),
            url,
        })
    }

    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Makes sure that a store of this log can be kept here, and that nobody else's is.
    ///
    /// # Errors
    ///
    /// When it is another log's, holds something else, may not be written, or keeps what is deleted.
    pub(super) async fn claim(&self, log: &Origin) -> anyhow::Result<()> {
        let is_ours = self.is_of(log).await?;
        if !is_ours {
            // A start may have ended between its probe and its word.
            let probe = Path::from(PROBE);
            let all = self.objects.list(None);
            let mut others = all.try_filter(|object| future::ready(object.location != probe));
            let something = others.try_next().await;
            if let Some(something) = something.map_err(|error| self.explained(error))? {
                bail!(
                    "{} is not empty, and what is in it ({}, for one) is of no collector: give the store a prefix of its own (store.url)",
                    self.url,
                    something.location
                );
            }
        }
        self.probe().await?;
        if is_ours {
            return Ok(());
        }
        let word = PutPayload::from(serde_json::to_vec(log)?);
        let only_if_new = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&Path::from(OWNER), word, only_if_new).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.explained(error)),
        }
        // Another collector may have come first; with a server that does not know the condition, second.
        ensure!(
            self.is_of(log).await?,
            "{} does not keep what is put there",
            self.url
        );
        Ok(())
    }

    /// Whether the store of this log is here; not if nobody's is.
    ///
    /// # Errors
    ///
    /// When another log's is, or that cannot be asked.
    pub(super) async fn is_of(&self, log: &Origin) -> anyhow::Result<bool> {
        let word = match self.objects.get(&Path::from(OWNER)).await {
            Ok(word) => word.bytes().await.map_err(|error| self.explained(error))?,
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(self.explained(error)),
        };
        let owner: Origin = serde_json::from_slice(&word).with_context(|| {
            format!(
                "{}/{OWNER} does not name a log: give the store a prefix of its own (store.url)",
                self.url
            )
        })?;
        ensure!(
            // Two logs may have one name; their keys tell them apart.
            owner.verifier_key == log.verifier_key,
            "{} holds the store of the log {} ({}), this one is {} ({}): give each collector a prefix of its own (store.url); if that log \
             is no more, delete everything below the prefix",
            self.url,
            owner.origin,
            owner.verifier_key,
            log.origin,
            log.verifier_key
        );
        Ok(true)
    }

    /// Deletes the store, but not the word whose it is.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        let mut all = Vec::new();
        let mut list = self.objects.list(None);
        while let Some(object) = list.try_next().await.map_err(|error| self.explained(error))? {
            all.push(object.location.to_string());
        }
        // Without it, nothing counts: where this is cut short, the next start deletes the rest.
        let (first, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|path| path != OWNER)
            .partition(|path| path == manifest::NAME);
        manifest::remove(&self.objects, first).await?;
        manifest::remove(&self.objects, rest).await
    }

    /// Writes and deletes, so that a start says what a seal would say later.
    async fn probe(&self) -> anyhow::Result<()> {
        let path = Path::from(PROBE);
        let put = self
            .objects
            .put(&path, PutPayload::from_static(b"pgwitness"))
            .await;
        let put = put.map_err(|error| self.explained(error))?;
        let deleted = self.objects.delete(&path).await;
        deleted.map_err(|error| self.explained(error))?;
        ensure!(
            !keeps_versions(&put),
            "the bucket of {} keeps versions of what is deleted, so that events that are erased would stay in it: name a bucket without \
             versioning, or suspend it",
            self.url
        );
        Ok(())
    }

    /// What to do about what the server said, or did not say.
    fn explained(&self, error: Error) -> anyhow::Error {
        let url = &self.url;
        // Of a list that was refused, the kind of the error does not tell why.
        let text = error.to_string();
        let says = |code: &str| text.contains(code);
        let what = match &error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => REFUSED,
            _ if says("AccessDenied") => REFUSED,
            Error::NotFound { .. } => "there is no such bucket: make it, or see store.url",
            _ if says("NoSuchBucket") => "there is no such bucket: make it, or see store.url",
            _ => "it cannot be reached: see store.endpoint and store.region",
        };
        let what = format!("the store in {url}: {what}");
        anyhow::Error::new(error).context(what)
    }
}

/// Without versioning an answer names no version, and `null` where it is suspended (S3 API, PutObject, `x-amz-version-id`).
fn keeps_versions(put: &PutResult) -> bool {
    put.version.as_deref().is_some_and(|version| version != "null")
}

const REFUSED: &str = "its server does not take these credentials, or does not let them read, list, write and delete there: see \
                       store.credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// The object that names the log.
const OWNER: &str = "owner.json";

/// What is written to see whether it can be.
const PROBE: &str = "probe";

/// How long one request may take: a file of some 30 MB over a slow line.
const MAX_REQUEST: Duration = Duration::from_secs(120);

/// How often a request is tried again, within which time: whoever asks waits for it, and seals are tried again by themselves.
const MAX_RETRIES: usize = 4;
const RETRY_FOR: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_with_versions_is_known_by_its_answers() {
        let answer = |version: Option<&str>| PutResult {
            e_tag: None,
            version: version.map(str::to_owned),
        };
        assert!(!keeps_versions(&answer(None)));
        assert!(!keeps_versions(&answer(Some("null"))));
        assert!(keeps_versions(&answer(Some("3sL4kqtJlcpXroDTDmJ"))));
    }
}
